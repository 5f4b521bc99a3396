"""Annotations that are malformed, hostile, unknown or not there."""

from __future__ import annotations

import gzip
import json

import pytest

from sess_ray import SessError
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import ClassMap
from sess_ray.io.names import read_class_names
from tests.io.annotated import BY_OBJECT, COCO, listed, parquet, xml


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
        ("000000000009.jpg", "an object without a box of 4 numbers: 'cat', None"),
        ("000000000009.jpg", "an object without a box of 4 numbers: 'cat', [1, 2, 'wide', 4]"),
        ("000000000009.jpg", "an object without a box of 4 numbers: 'cat', [1, 2, nan, 4]"),
        ("000000000009.jpg", "an object of a category without a name: 77"),
        ("annotation 7", "is of an image that is not listed: 404"),
        ("000000000009.jpg", "an object with segments that are neither polygons nor RLE: 'cat'"),
        ("annotations[8]", "is no object: what"),
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
        ("line 3", "is no object"),
        ("line 4", "has no image_id (id, file, file_name)"),
        ("c", "objects are no list"),
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
        ("good.jpg", "an object without a box of 4 numbers"),
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


def test_what_is_compressed_is_called_so(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"{}"))
    for read, what in (
        (read_annotations, "annotations"),
        (ClassMap.read, "class map"),
        (read_class_names, "class names"),
    ):
        with pytest.raises(SessError, match=rf"^{what} .*a\.json\.gz: compressed by gzip, unpack the file first$"):
            read(str(tmp_path / "a.json.gz"))
