"""Large files of maps, for whoever makes files of their images: parts of them, and images that are whole."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray.io import file_parts
from sess_ray.io.file_parts import images_in, parts_of
from sess_ray.io.groups import read_images
from sess_ray.io.store import MAPS, Store

IDS = [f"{number // 3:02}.jpg" for number in range(60)]  # three maps each


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A file of 20 images, in row groups that cut them; and one where the rows of an image lie apart."""
    root = tmp_path_factory.mktemp("run")
    (root / "maps").mkdir()
    for file, ids in (("a", IDS), ("b", ["x.jpg", "y.jpg", "x.jpg", "z.jpg"])):
        rows = [{"image_id": name, "uri": f"/{name}", "target": number} for number, name in enumerate(ids)]
        pq.write_table(pa.Table.from_pylist(rows, MAPS), root / "maps" / f"{file}.parquet", row_group_size=7)
    return Store(str(root))


def listed(run, noted=len):
    return parts_of(run, run.tables("maps"), ["target"], noted)


def test_files_are_cut_where_an_image_ends(run, monkeypatch):
    seen = []
    found, names = listed(run, lambda table: seen.append((table.column_names, len(table))))
    assert found == [
        {"file": "maps/a.parquet", "first": 0, "rows": 60, "images": 20},
        {"file": "maps/b.parquet", "first": 0, "rows": 4, "images": 3},
    ]
    assert seen == [(["image_id", "target"], rows) for rows in (60, 4)]
    assert (names.apart, names.of("07.jpg")) == ({}, "07")
    monkeypatch.setattr(file_parts, "FILE_IMAGES", 10)
    monkeypatch.setattr(file_parts, "PART_IMAGES", 6)
    found, _ = listed(run)
    places = [(part["first"], part["rows"], part["images"]) for part in found]
    assert places == [(0, 18, 6), (18, 18, 6), (36, 18, 6), (54, 6, 2), (0, 4, 3)]
    found = [images for part in found for images, _ in images_in(part, run, (names, None))]
    whole = [(name, len(rows)) for images in found for name, rows in images.items()]
    assert whole == [*((f"{number:02}.jpg", 3) for number in range(20)), ("x.jpg", 2), ("y.jpg", 1), ("z.jpg", 1)]


@pytest.mark.parametrize("at_once", [512, 2])
def test_images_are_whole_and_some_at_a_time(run, at_once):
    found = list(read_images(run, "maps/a.parquet", 3, 33, at_once))
    assert [name for images in found for name in images] == [f"{number:02}.jpg" for number in range(1, 12)]
    assert max(map(len, found)) <= at_once
    targets = [row["target"] for images in found for rows in images.values() for row in rows]
    assert targets == list(range(3, 36))
    [images] = read_images(run, "maps/b.parquet", 0, 4)
    assert {name: [row["target"] for row in rows] for name, rows in images.items()} == {
        "x.jpg": [0, 2],
        "y.jpg": [1],
        "z.jpg": [3],
    }
    assert list(images) == ["x.jpg", "y.jpg", "z.jpg"]
