"""Names of files for images: unique over a dataset, of which only what shares its name is held."""

from __future__ import annotations

import random

import pytest

from sess_ray.io.file_names import file_names, unique_names


@pytest.mark.parametrize("seed", range(20))
def test_names_found_in_parts_are_those_of_all_together(seed):
    draw = random.Random(seed)
    ends = ("", ".jpg", ".JPG", ".png", ".jpg.png", ".txt")
    names = ("a", "A", "b", "c.jpg", "../d", ".e", "f g", "ä", "h", "image-2d1f881c407e810f3058")
    ids = [f"{draw.choice(('', 'x/', 'X/'))}{draw.choice(names)}{draw.choice(ends)}" for _ in range(25)]
    read = []

    def parts():
        read.append(0)
        return (ids[at : at + 4] for at in range(0, len(ids), 4))

    ids = list(dict.fromkeys(ids))
    found = unique_names(parts)
    assert {image_id: found.of(image_id) for image_id in ids} == file_names(ids)
    assert len({found.of(image_id).lower() for image_id in ids}) == len(ids)
    assert len(read) <= 3


def test_only_what_shares_a_name_is_held_and_read_again():
    ids = [f"{number}.jpg" for number in range(1000)]
    read = []

    def parts(more=()):
        read.append(0)
        return iter([ids, list(more)])

    assert unique_names(parts).apart == {}
    assert len(read) == 1
    shared = ["7.png", "N.jpg", "n.jpg"]
    assert unique_names(lambda: parts(shared)).apart == {
        "7.jpg": "7.jpg",
        "7.png": "7.png",
        **{name: file_names(shared)[name] for name in ("N.jpg", "n.jpg")},
    }
    assert len(read) == 3
    # What keeps its extension is called as another that has two: a third reading.
    assert set(unique_names(lambda: parts(["7.png", "7.jpg.png"])).apart) == {"7.jpg", "7.png", "7.jpg.png"}
    assert len(read) == 6


def test_an_image_with_maps_in_several_files_has_one_name():
    assert unique_names(lambda: iter([["a.jpg"], ["a.jpg", "b.jpg"]])).of("a.jpg") == "a"
