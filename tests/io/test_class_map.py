"""What labels mean: the model's own names, and class maps."""

from __future__ import annotations

import pickle

import pytest

from sess_ray import SessError
from sess_ray.io.annotations import (
    ClassMap,
)

NAMES = {"tench": 0, "crane": 1, "n01440764": 0}


def resolve(given):
    """As `sess_ray.models.groups.members` of a model with 10 classes."""
    if given.isdigit() and int(given) < 10:
        return (int(given),)
    if given == "6-8":
        return range(6, 9)
    if given in NAMES:
        return (NAMES[given],)
    raise SessError(f"unknown class {given!r}")


def test_without_a_class_map_the_model_knows():
    assert [ClassMap().classes(label, resolve) for label in ("tench", "n01440764", "7", "70", "cat")] == [
        (0,),
        (0,),
        (7,),
        (),
        (),
    ]


def test_class_maps(place):
    url = place(
        {
            "m.json": '{"cat": 3, "bird": [4, "crane", 4], "fish": "tench", "person": [], "far": 10}',
            "n.json": '{"many": ["6-8", 7, 1]}',
            "m.csv": "label,index\ncat,3\nbird,4\nbird,crane\nfish,tench\n",
            "m.tsv": 'cat\t3\n\nbird\t4\nbird\tcrane\nfish\ttench\n"a, b"\t5\n',
        }
    )
    for name in ("m.json", "m.csv", "m.tsv"):
        read = ClassMap.read(f"{url}/{name}")
        labels = ("cat", "bird", "fish", "person", "tench")
        assert [read.classes(label, resolve) for label in labels] == [(3,), (4, 1), (0,), (), ()], name
    assert read.classes("a, b", resolve) == (5,)
    assert ClassMap.read(f"{url}/n.json").classes("many", resolve) == (6, 7, 8, 1)
    with pytest.raises(SessError, match=r"class map .*m\.json: label 'far': unknown class '10'"):
        ClassMap.read(f"{url}/m.json").classes("far", resolve)
    assert pickle.loads(pickle.dumps(read)) == read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is broken JSON"),
        ('{"cat": 1.5}', "'cat' needs an index, a name or a list of them, not 1.5"),
        ('{"cat": [true]}', "'cat' needs an index"),
        ("{}", "is empty"),
        ("", "is empty"),
        ("cat,1\ndog\n", r"two columns label and index in every row, not \['dog'\]"),
        (b"\xff\xfe\0", "no text"),
    ],
)
def test_what_is_no_class_map_is_refused(place, content, message):
    with pytest.raises(SessError, match=message):
        ClassMap.read(place({"m": content}) + "/m")


def test_a_class_map_that_is_not_there(tmp_path):
    with pytest.raises(SessError, match=r"^no such class map: .*gone\.json$"):
        ClassMap.read(f"{tmp_path}/gone.json")
