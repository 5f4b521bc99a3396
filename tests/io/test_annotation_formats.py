"""Annotations of every format."""

from __future__ import annotations

import json

import pytest

from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import (
    Annotation,
    Object,
)
from tests.io.annotated import BY_OBJECT, COCO, listed, parquet, xml


def test_coco(place):
    url = place({"instances.json": json.dumps(COCO)}) + "/instances.json"
    found = read_annotations(url)
    assert found.source == url
    assert found.problems == []
    assert found.by_id == {
        "000000000009.jpg": Annotation(
            "000000000009.jpg",
            [
                Object("dog", (1, 2, 4.5, 3), [[1, 2, 4, 2, 4, 3]]),
                Object("cat", (0, 0, 2, 2), {"size": [4, 6], "counts": [0, 2, 2, 2, 18]}, crowd=True),
            ],
            6,
            4,
        ),
        "b.jpg": Annotation("b.jpg", [], None, None),
    }
    assert found.labels() == ["cat", "dog"]


def test_voc_marks_what_is_difficult(place):
    marked = xml([("dog", 1, 1, 5, 5), ("cat", 1, 1, 9, 9)])
    marked = marked.replace("<name>dog</name>", "<name>dog</name><difficult>1</difficult>")
    marked = marked.replace("<name>cat</name>", "<name>cat</name><difficult>0</difficult>")
    [annotation] = read_annotations(place({"000005.xml": marked, "empty.txt": ""})).by_id.values()
    assert [(thing.label, thing.difficult) for thing in annotation.objects] == [("dog", True), ("cat", False)]


def test_voc_counts_from_1_and_includes_the_last_pixel(place):
    url = place(
        {
            "VOC2007/Annotations/000005.xml": xml([("chair", 263, 211, 324, 339), ("dog", 1, 1, 500, 375)]),
            "VOC2007/Annotations/2008_01.xml": xml([("cat", "45.5", 1, 60, 2)], "2008_01.jpg", "", (0, 9)),
            "VOC2007/Segmentation/other.xml": "<svg/>",
            "VOC2007/JPEGImages/000005.jpg": b"",
        }
    )
    found = read_annotations(f"{url}/VOC2007")
    assert listed(found) == {
        "000005.jpg": [("chair", (262, 210, 324, 339)), ("dog", (0, 0, 500, 375))],
        "2008_01.jpg": [("cat", (44.5, 0, 60, 2))],
    }
    assert [(a.width, a.height) for a in found.by_id.values()] == [(500, 375), (None, 9)]
    assert found.problems == []
    above = read_annotations(url)
    assert list(above.by_id) == ["VOC2007/000005.jpg", "VOC2007/2008_01.jpg"]
    assert above.problems == [
        ("VOC2007/Segmentation/other.xml", "has another root than the <annotation> of Pascal VOC and ImageNet: <svg>")
    ]
    assert listed(read_annotations(f"{url}/VOC2007/Annotations/000005.xml")).keys() == {"000005.jpg"}


@pytest.mark.parametrize("database", ["ILSVRC_2012", "ImageNet database"])
def test_imagenets_xml_counts_from_0_and_includes_the_last_pixel(place, database):
    url = place(
        {
            "val/ILSVRC2012_val_00000001.xml": xml(
                [("n01751748", 111, 108, 441, 193)], "ILSVRC2012_val_00000001", database
            ),
            "train/n01440764/n01440764_96.xml": xml([("n01440764", 0, 0, 499, 374)], "%s", database),
        }
    )
    found = read_annotations(url)
    assert listed(found) == {
        "val/ILSVRC2012_val_00000001": [("n01751748", (111, 108, 442, 194))],
        "train/n01440764/n01440764_96": [("n01440764", (0, 0, 500, 375))],
    }
    assert found.find("images/ILSVRC2012_val_00000001.JPEG").image_id == "val/ILSVRC2012_val_00000001"


def test_imagenets_csv(place):
    rows = [
        "ImageId,PredictionString",
        "ILSVRC2012_val_00048981,n03995372 85 1 499 272 ",
        "ILSVRC2012_val_00000009,n02017213 115 49 448 294 n02017214 0 0 1 2",
        "ILSVRC2012_val_00000010,",
        "ILSVRC2012_val_00000011,n02017213 1 2 3 4 n02017213 1 2",
    ]
    found = read_annotations(place({"LOC_val_solution.csv": "\r\n".join(rows)}) + "/LOC_val_solution.csv")
    assert listed(found) == {
        "ILSVRC2012_val_00048981": [("n03995372", (85, 1, 500, 273))],
        "ILSVRC2012_val_00000009": [("n02017213", (115, 49, 449, 295)), ("n02017214", (0, 0, 2, 3))],
        "ILSVRC2012_val_00000010": [],
        "ILSVRC2012_val_00000011": [("n02017213", (1, 2, 4, 5))],
    }
    assert found.problems == [
        ("ILSVRC2012_val_00000011", "an object without a box of 4 numbers: 'n02017213', ['1', '2']")
    ]


def test_the_list_of_the_shared_data(place):
    rows = [
        {
            "file": "i/a.JPEG",
            "class_index": 65,
            "wnid": "n1",
            "width": 5,
            "height": 4,
            "boxes": [[1, 2, 3, 4], [0] * 4],
        },
        {"file": "i/b.JPEG", "wnid": "n2", "width": 5, "height": 4, "boxes": [[0.5, 0, 3, 4]]},
        {"file": "i/c.JPEG", "class_index": 3, "width": 7, "height": 8},
    ]
    found = read_annotations(place({"labels.json": json.dumps(rows, indent=1)}) + "/labels.json")
    assert listed(found) == {
        "i/a.JPEG": [("65", (1, 2, 3, 4)), ("65", (0, 0, 0, 0))],
        "i/b.JPEG": [("n2", (0.5, 0, 3, 4))],
        "i/c.JPEG": [],
    }
    assert (found.by_id["i/c.JPEG"].width, found.by_id["i/c.JPEG"].height) == (7, 8)
    assert found.problems == []


BY_IMAGE = [
    {
        "image_id": "x/a.jpg",
        "width": 6,
        "height": 4,
        "objects": [
            {"label": "cat", "box": [0, 1, 2.5, 3], "segments": [[0.0, 0.0, 2.0, 0.0, 2.0, 2.0]]},
            {"label": "dog", "box": [1, 1, 2, 2]},
        ],
    },
    {"image_id": "7", "objects": []},
]


EITHER = {"x/a.jpg": [("cat", (0, 1, 2.5, 3)), ("dog", (1, 1, 2, 2))], "7": []}


@pytest.mark.parametrize("rows", [BY_IMAGE, BY_OBJECT], ids=["row an image", "row an object"])
def test_our_manifests(place, rows):
    url = place({"m.jsonl": "\n".join(map(json.dumps, rows)) + "\n", "m.parquet": parquet(rows)})
    for name in ("m.jsonl", "m.parquet"):
        found = read_annotations(f"{url}/{name}")
        assert listed(found) == EITHER, name
        assert found.problems == [], name
        if rows is BY_IMAGE:
            first = found.by_id["x/a.jpg"]
            assert (first.width, first.height) == (6, 4)
            assert [o.segments for o in first.objects] == [[[0, 0, 2, 0, 2, 2]], None]


def test_one_row_an_object_as_a_table(place):
    lines = [",".join(BY_OBJECT[0]), *(",".join("" if v is None else str(v) for v in r.values()) for r in BY_OBJECT)]
    url = place({"m.csv": "\n".join(lines), "m.tsv": "\n".join(lines).replace(",", "\t")})
    assert listed(read_annotations(f"{url}/m.csv")) == EITHER
    assert listed(read_annotations(f"{url}/m.tsv")) == EITHER


def test_run_length_codes_in_parquet(place):
    rows = [
        {"image_id": "a", "objects": [{"label": "x", "box": [0, 0, 3, 2], "segments": segments}]}
        for segments in ({"size": [2, 3], "counts": b"123"}, {"size": None, "counts": None})
    ]
    found = read_annotations(place({"m.parquet": parquet(rows)}) + "/m.parquet")
    assert [o.segments for o in found.by_id["a"].objects] == [{"size": [2, 3], "counts": b"123"}, None]
    assert found.problems == []
