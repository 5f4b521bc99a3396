"""Annotations of every format, and what labels mean."""

from __future__ import annotations

import json
import pickle
import sys
import time
from functools import partial

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray import SessError
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import (
    Annotation,
    Annotations,
    ClassMap,
    Object,
    region,
)
from sess_ray.models.groups import members
from tests.conftest import SHARED

COCO = {
    "images": [{"id": 9, "file_name": "000000000009.jpg", "width": 6, "height": 4}, {"id": 10, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 18, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1, 2, 3.5, 1], "segmentation": [[1, 2, 4, 2, 4, 3]]},
        {
            "id": 2,
            "image_id": 9,
            "category_id": 1,
            "bbox": [0, 0, 2, 2],
            "iscrowd": 1,
            "segmentation": {"size": [4, 6], "counts": [0, 2, 2, 2, 18]},
        },
    ],
}


def xml(objects, name="000005.jpg", database="The VOC2007 Database", size=(500, 375)):
    boxes = "".join(
        f"<object><name>{label}</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part><bndbox>"
        f"<xmax>{x1}</xmax><xmin>{x0}</xmin><ymin>{y0}</ymin><ymax>{y1}</ymax></bndbox></object>"
        for label, x0, y0, x1, y1 in objects
    )
    return (
        f"<annotation><folder>F</folder><filename>{name}</filename><source><database>{database}</database></source>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>{boxes}</annotation>"
    )


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """Write files into a folder and return its URL."""
    url = str(tmp_path) if request.param == "local" else f"memory://annotations/{tmp_path.name}"

    def write(files):
        for name, content in files.items():
            with fsspec.open(f"{url}/{name}", "wb", auto_mkdir=True) as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        return url

    return write


def listed(annotations):
    return {key: [(o.label, o.box) for o in value.objects] for key, value in annotations.by_id.items()}


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} of the shared data: set SESS_RAY_DATA to the folder that holds it")
    return str(path)


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
                Object("cat", (0, 0, 2, 2), {"size": [4, 6], "counts": [0, 2, 2, 2, 18]}),
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
        ("VOC2007/Segmentation/other.xml", "has <svg> where Pascal VOC and ImageNet have <annotation>")
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
        ("ILSVRC2012_val_00000011", "an object 'n02017213' without a box of 4 numbers: ['1', '2']")
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
BY_OBJECT = [
    {"id": "x/a.jpg", "label": "cat", "x0": 0, "y0": 1, "x1": 2.5, "y1": 3},
    {"id": "x/a.jpg", "label": "dog", "x0": 1, "y0": 1, "x1": 2, "y1": 2},
    {"id": "7", "label": None, "x0": None, "y0": None, "x1": None, "y1": None},
]
EITHER = {"x/a.jpg": [("cat", (0, 1, 2.5, 3)), ("dog", (1, 1, 2, 2))], "7": []}


def parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


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


def test_malformed_entries_are_listed_and_the_rest_is_read(place):
    bad = [
        {"id": 3, "image_id": 9, "category_id": 1},
        {"id": 4, "image_id": 9, "category_id": 1, "bbox": [1, 2, "wide", 4]},
        {"id": 5, "image_id": 9, "category_id": 1, "bbox": [1, 2, float("nan"), 4]},
        {"id": 6, "image_id": 9, "category_id": 77, "bbox": [1, 2, 3, 4]},
        {"id": 7, "image_id": 404, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {
            "id": 8,
            "image_id": 9,
            "category_id": 1,
            "bbox": [1, 2, 3, 4],
            "segmentation": [[1, 2, 3], [1, 1, 9, 1, 1, 9]],
        },
        "what",
    ]
    document = {**COCO, "annotations": [*COCO["annotations"], *bad], "images": [*COCO["images"], {"id": 11}]}
    found = read_annotations(place({"c.json": json.dumps(document)}) + "/c.json")
    assert found.problems == [
        ("image 11", "has no file_name"),
        ("000000000009.jpg", "an object 'cat' without a box of 4 numbers: None"),
        ("000000000009.jpg", "an object 'cat' without a box of 4 numbers: [1, 2, 'wide', 4]"),
        ("000000000009.jpg", "an object 'cat' without a box of 4 numbers: [1, 2, nan, 4]"),
        ("000000000009.jpg", "an object without a label: [1, 2, 3, 4]"),
        ("annotation 7", "is of image 404, not listed"),
        ("000000000009.jpg", "an object 'cat' with segments that are neither polygons nor RLE"),
        ("annotations[8]", "is no object with an id"),
    ]
    assert [o.segments for o in found.by_id["000000000009.jpg"].objects[2:]] == [[[1, 1, 9, 1, 1, 9]]]

    lines = ['{"image_id": "a", "objects": [{"box": [0, 0, 1, 1]}, 3]}', '{"image_id": "b"', "[1]", '{"objects": []}']
    lines += [
        '{"image_id": "c", "objects": "many"}',
        '{"image_id": "d", "objects": [{"label": "x", "box": [0,0,1,1]}]}',
    ]
    found = read_annotations(place({"m.jsonl": "\n".join(lines)}) + "/m.jsonl")
    assert listed(found) == {"a": [], "c": [], "d": [("x", (0, 0, 1, 1))]}
    assert [(key, message.split(":")[0]) for key, message in found.problems] == [
        ("a", "an object without a label"),
        ("a", "an object without a label"),
        ("line 2", "broken JSON"),
        ("line 3", "is no object but [1]"),
        ("line 4", "has no image_id (id, file, file_name)"),
        ("c", "objects are no list but many"),
    ]


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbb"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;</annotation>'


def test_xml_that_is_broken_or_a_bomb_is_listed(place):
    url = place(
        {
            "bomb.xml": BOMB,
            "bomb16.xml": BOMB.encode("utf-16"),
            "broken.xml": "<annotation><object>",
            "empty.xml": "",
            "good.xml": xml([("dog", 1, 1, 2, 2), ("cat", 1, "", 2, 2)], "good.jpg"),
            "codec.xml": b'<?xml version="1.0" encoding="klingon"?><annotation/>',
        }
    )
    found = read_annotations(url)
    assert listed(found) == {"good.jpg": [("dog", (0, 0, 2, 2))]}
    assert sorted((key, message.split(":")[0]) for key, message in found.problems) == [
        ("bomb.xml", "has a DOCTYPE or ENTITY, which is refused"),
        ("bomb16.xml", "has a DOCTYPE or ENTITY, which is refused"),
        ("broken.xml", "broken XML"),
        ("codec.xml", "broken XML"),
        ("empty.xml", "broken XML"),
        ("good.jpg", "an object 'cat' without a box of 4 numbers"),
    ]
    assert all("\n" not in message for _, message in found.problems)


def test_what_is_unknown_is_named(place):
    files = {
        "a.json": '{"licenses": [], "shapes": []}',
        "b.csv": "name,colour\ncat,grey\n",
        "c.txt": "once upon a time",
        "d.bin": b"\xff\xd8\xff\xe0\0\x10JFIF",
        "e.json": "",
        "f.json": "[]",
        "g.json": '[{"picture": 1}]',
        "h.jsonl": '{"image_id": "a", "colour": 3}\n{"image_id": "b"}',
        "i.parquet": parquet([{"uri": "a", "label": "b"}]),
        "folder/photo.jpg": b"",
    }
    url = place(files)
    for name, message in {
        "a.json": "found a JSON object with licenses, shapes;",
        "b.csv": "found a table with the columns name, colour;",
        "c.txt": "found text that begins 'once upon a time';",
        "d.bin": r"found bytes that are no text, beginning b'\\xff\\xd8.*;",
        "e.json": "found an empty file;",
        "f.json": "found no rows;",
        "g.json": "found rows with picture;",
        "h.jsonl": "found rows with image_id, colour;",
        "i.parquet": "found rows with uri, label;",
        "folder": "found a folder without XML, with photo.jpg;",
    }.items():
        with pytest.raises(SessError, match=rf"{name}: {message} known are COCO instances JSON; a folder of") as caught:
            read_annotations(f"{url}/{name}")
        assert "\n" not in str(caught.value)


def test_what_can_not_be_read_is_named(place):
    url = place({"half.json": '{"images": [{"id": 1},\n', "half.parquet": parquet(BY_OBJECT)[:40]})
    with pytest.raises(SessError, match=r"^no such annotations: .*gone\.json$"):
        read_annotations(f"{url}/gone.json")
    with pytest.raises(SessError, match=r"half\.json is broken JSON: .* line 2 column 1"):
        read_annotations(f"{url}/half.json")
    with pytest.raises(SessError, match=r"^cannot read .*half\.parquet: ArrowInvalid"):
        read_annotations(f"{url}/half.parquet")


def of(*image_ids):
    return Annotations({image_id: Annotation(image_id) for image_id in image_ids})


@pytest.mark.parametrize(
    ("annotated", "image_id", "expected"),
    [
        (["000000000009.jpg"], "train2017/000000000009.jpg", "000000000009.jpg"),
        (["ILSVRC2012_val_00000001"], "val/ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000001"),
        (["images/a.jpg"], "a.png", "images/a.jpg"),
        (["images/a.jpg"], "val/a.jpg", "images/a.jpg"),
        (["photo.v1", "photo.v2"], "x/photo.v2.jpg", "photo.v2"),
        (["a.jpg"], "b.jpg", None),
        (["a.jpg"], "ba.jpg", None),
        # Several of that name.
        (["a/1.jpg", "b/1.jpg"], "a/1.jpg", "a/1.jpg"),
        (["a/1.jpg", "b/1.jpg"], "data/b/1.png", "b/1.jpg"),
        (["x/a/1.jpg", "x/b/1.jpg"], "a/1.jpg", "x/a/1.jpg"),
        (["a/1.jpg", "b/1.jpg"], "1.jpg", None),
        (["a/1.jpg", "b/1.jpg"], "c/1.jpg", None),
        (["train/a/1.jpg", "train/b/1.jpg"], "val/a/1.jpg", None),
        (["x/a/1.jpg", "y/a/1.jpg"], "a/1.jpg", None),
        (["1.jpg", "a/1.jpg"], "x/a/1.jpg", "a/1.jpg"),
        (["1.jpg", "a/1.jpg"], "b/1.jpg", "1.jpg"),
        (["1.jpg", "a/1.jpg"], "b/1.png", "1.jpg"),
        (["1.jpg", "1.png"], "x/1.png", "1.png"),
        (["1.jpg", "1.png"], "x/1.bmp", None),
    ],
)
def test_find(annotated, image_id, expected):
    for ids in (annotated, annotated[::-1]):
        found = of(*ids).find(image_id)
        assert (found and found.image_id) == expected


@pytest.mark.slow
def test_find_is_fast_and_the_annotations_travel():
    ids = [f"{folder}/{number}.jpg" for folder in range(200) for number in range(1000)]
    annotations = pickle.loads(pickle.dumps(of(*ids)))
    start = time.perf_counter()
    assert all(annotations.find(f"data/{image_id}").image_id == image_id for image_id in ids)
    assert annotations.find("data/1.jpg") is None
    assert time.perf_counter() - start < 20
    assert pickle.loads(pickle.dumps(annotations)).find("data/7/9.png").image_id == "7/9.jpg"


def drawn(mask):
    return ["".join(".#"[int(value)] for value in row) for row in mask]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1, 1, 3, 2), ["....", ".##.", "...."]),
        ((0.5, 0.5, 2.5, 1.5), ["##..", "....", "...."]),
        ((0.6, 0, 2.6, 3), [".##.", ".##.", ".##."]),
        ((-5, -5, 99, 1), ["####", "....", "...."]),
        ((-5, -5, -1, -1), ["....", "....", "...."]),
        ((4, 0, 9, 9), ["....", "....", "...."]),
        ((2, 1, 2, 3), ["....", "....", "...."]),
        ((3, 2, 1, 1), ["....", "....", "...."]),
        ((1.6, 1, 2.4, 2), ["....", "....", "...."]),
    ],
)
def test_a_box_covers_the_pixels_whose_centres_lie_in_it(box, expected):
    covered = region([Object("x", box)], 3, 4, "boxes")
    assert covered.dtype == bool
    assert drawn(covered) == expected


def test_a_region_is_the_union():
    objects = [Object("x", (0, 0, 2, 1)), Object("x", (1, 0, 2, 3))]
    assert drawn(region(objects, 3, 4, "boxes")) == ["##..", ".#..", ".#.."]
    assert not region([], 3, 4, "boxes").any()
    with pytest.raises(SessError, match="unknown kind of region 'ellipses': choose one of: boxes, segments"):
        region(objects, 3, 4, "ellipses")


def test_run_length_codes_of_both_kinds():
    mask = pytest.importorskip("pycocotools.mask")
    picture = [".##.", "#..#", "#..#"]  # by columns: ".##" "#.." "#.." ".##"
    lengths = {"size": [3, 4], "counts": [1, 3, 2, 1, 3, 2]}
    pixels = np.array([[cell == "#" for cell in row] for row in picture], np.uint8)
    compressed = mask.encode(np.asfortranarray(pixels))
    as_text = {"size": compressed["size"], "counts": compressed["counts"].decode()}
    for code in (lengths, compressed, as_text):
        assert drawn(region([Object("x", (0, 0, 4, 3), code)], 3, 4, "segments")) == picture
    assert region([Object("x", (0, 0, 4, 3), lengths)], 3, 4, "boxes").all()


def test_an_object_without_segments_counts_by_its_box():
    pytest.importorskip("pycocotools")
    square = Object("x", (0, 0, 4, 3), [[0, 0, 2, 0, 2, 2, 0, 2]])
    assert drawn(region([square, Object("x", (3, 2, 4, 3))], 3, 4, "segments")) == ["##..", "##..", "...#"]
    two = Object("x", (0, 0, 4, 3), [[0, 0, 2, 0, 2, 2, 0, 2], [2, 1, 4, 1, 4, 3, 2, 3]])
    assert drawn(region([two], 3, 4, "segments")) == ["##..", "####", "..##"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ({"size": [4, 3], "counts": [12]}, "segments are of an image of 3 x 4 pixels, this one has 4 x 3"),
        ({"size": [3, 4], "counts": [1, 30]}, "run lengths sum to 31, not to 3 x 4"),
        ({"size": [3, 4], "counts": [1, 3]}, "run lengths sum to 4, not to 3 x 4"),
        ({"size": [3, 4], "counts": [14, -2]}, "run lengths sum to 12"),
        ({"size": [3, 4], "counts": "1n"}, "is no compressed run-length code"),
        ({"size": [3, 4], "counts": "1 !"}, "is no compressed run-length code"),
        ({"size": [3, 4], "counts": "13"}, "run lengths sum to 4"),
        ({"size": [3, 4]}, "a segment of 'x' is no polygon or run-length code: 'counts'"),
    ],
)
def test_codes_that_do_not_fit_are_refused(code, message):
    pytest.importorskip("pycocotools")
    with pytest.raises(SessError, match=message):
        region([Object("x", (0, 0, 4, 3), code)], 3, 4, "segments")


def test_without_pycocotools_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    entry = Object("x", (0, 0, 4, 3), [[0, 0, 2, 0, 2, 2, 0, 2]])
    with pytest.raises(SessError, match=r"needs pycocotools: install sess-ray\[evaluate\]"):
        region([entry], 3, 4, "segments")
    assert region([Object("x", (0, 0, 4, 3))], 3, 4, "segments").all()


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


def test_real_coco():
    found = read_annotations(shared("coco-subset/annotations/instances_train2017.json"))
    objects = [entry for annotation in found.by_id.values() for entry in annotation.objects]
    assert (len(found.by_id), len(objects), len(found.labels()), found.problems) == (128, 939, 71, [])
    assert sum(isinstance(entry.segments, dict) for entry in objects) == 10
    first = found.find("train2017/000000000009.jpg")
    assert (first.image_id, first.width, first.height) == ("000000000009.jpg", 640, 480)
    assert first.objects[0].label == "bowl"
    assert first.objects[0].box == pytest.approx((1.08, 187.69, 612.67, 473.53))


def test_real_class_map(squeezenet):
    found = read_annotations(shared("coco-subset/annotations/instances_train2017.json"))
    classes = ClassMap.read(shared("coco-subset/coco_to_imagenet.json"))
    assert len(classes.entries) == 61
    pairs = {(a.image_id, entry.label) for a in found.by_id.values() for entry in a.objects}
    mapped = sum(bool(classes.classes(label, partial(members, model=squeezenet))) for _, label in pairs)
    assert (len(pairs), mapped) == (362, 245)
    assert classes.classes("cat", partial(members, model=squeezenet)) == (281, 282, 283, 284, 285)
    assert classes.classes("person", partial(members, model=squeezenet)) == ()


def test_real_segments_against_pycocotools():
    coco = pytest.importorskip("pycocotools.coco")
    path = shared("coco-subset/annotations/instances_train2017.json")
    found = read_annotations(path)
    oracle = coco.COCO(path)
    compared = 0
    for image in oracle.imgs.values():
        annotation = found.by_id[image["file_name"]]
        given = oracle.imgToAnns[image["id"]]
        for entry, reference in zip(annotation.objects, given, strict=True):
            ours = region([entry], image["height"], image["width"], "segments")
            np.testing.assert_array_equal(ours, oracle.annToMask(reference).astype(bool))
            compared += 1
    assert compared == 939


@pytest.mark.parametrize(
    ("name", "images", "boxes", "first"),
    [
        ("imagenet-val-boxes", 65, 104, ("images/ILSVRC2012_val_00000001.JPEG", "65", (111, 108, 442, 194))),
        ("imagenet-val-227", 400, 599, ("images/ILSVRC2012_val_00000580.JPEG", "480", (138.92, 0, 223.37, 227))),
    ],
)
def test_real_imagenet_boxes(name, images, boxes, first):
    found = read_annotations(shared(f"{name}/labels.json"))
    assert (len(found.by_id), found.problems) == (images, [])
    assert sum(len(annotation.objects) for annotation in found.by_id.values()) == boxes
    annotation = found.find(first[0].removeprefix("images/"))
    assert (annotation.image_id, annotation.objects[0].label, annotation.objects[0].box) == first
    for annotation in found.by_id.values():
        assert region(annotation.objects, annotation.height, annotation.width, "boxes").any()


def test_real_images_with_labels_alone():
    found = read_annotations(shared("imagenet-samples/labels.json"))
    assert (len(found.by_id), found.labels(), found.problems) == (160, [], [])
