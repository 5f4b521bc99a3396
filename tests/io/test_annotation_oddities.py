"""Annotations as exporters write them: ids of other types, odd file names, no boxes, other encodings."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sess_ray import SessError
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import Object
from sess_ray.io.regions import extent, region
from tests.io.annotated import COCO, listed, parquet, xml

DOG, CAT = ("dog", (1, 2, 4.5, 3)), ("cat", (0, 0, 2, 2))
BOTH = {"000000000009.jpg": [DOG, CAT], "b.jpg": []}


def coco(tmp_path, **given):
    """Read COCO's sample with other lists."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**COCO, **given}))
    return read_annotations(str(path))


def changed(key, **functions):
    """Return a list of COCO's sample with some values changed; None for a value takes it away."""
    entries = [
        {name: functions[name](value) if name in functions else value for name, value in entry.items()}
        for entry in COCO[key]
    ]
    return [{name: value for name, value in entry.items() if value is not None} for entry in entries]


@pytest.mark.parametrize("kind", [str, float, lambda value: f" {value} "])
@pytest.mark.parametrize("lists", [("images", "categories"), ("annotations",), ("images", "categories", "annotations")])
def test_ids_of_any_type(tmp_path, kind, lists):
    names = {"images": ("id",), "categories": ("id",), "annotations": ("id", "image_id", "category_id")}
    given = {key: changed(key, **dict.fromkeys(names[key], kind)) for key in lists}
    found = coco(tmp_path, **given)
    assert listed(found) == BOTH
    assert found.problems == []


def test_annotations_need_no_id(tmp_path):
    found = coco(tmp_path, annotations=changed("annotations", id=lambda _: None))
    assert listed(found) == BOTH
    bad = [{"image_id": 404}, {"image_id": 9, "category_id": 18}, 7, {"id": True, "image_id": True}]
    assert coco(tmp_path, annotations=bad).problems == [
        ("annotations[0]", "is of an image that is not listed: 404"),
        ("000000000009.jpg", "an object without a box of 4 numbers: 'dog', None"),
        ("annotations[2]", "is no object: 7"),
        ("annotations[3]", "is of an image that is not listed: True"),
    ]


def test_an_image_id_of_two_images_is_nobodys(tmp_path):
    images = [*COCO["images"], {"id": 9.0, "file_name": "c.jpg"}, {"id": 10, "file_name": "b.jpg", "width": 3}]
    found = coco(tmp_path, images=images)
    assert listed(found) == {"000000000009.jpg": [], "c.jpg": [], "b.jpg": []}
    assert found.problems == [
        ("000000000009.jpg", "has an id that 2 images have: 9"),
        ("c.jpg", "has an id that 2 images have: 9"),
        ("annotation 1", "is of an id that several images have: 9"),
        ("annotation 2", "is of an id that several images have: 9"),
    ]
    assert found.problems_of("c.jpg") == ["has an id that 2 images have: 9"]
    assert found.reasons()["is of an id that several images have"] == 2


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("images\\train\\1.jpg", "images/train/1.jpg"),
        ("C:\\data\\train\\1.jpg", "train/1.jpg"),
        (".\\1.jpg", "1.jpg"),
        ("./train//1.jpg", "train/1.jpg"),
        ("/data/train/1.jpg", "train/1.jpg"),
        ("../train/1.jpg", "train/1.jpg"),
        ("train/1.jpg", "train\\1.jpg"),
        (" 1.jpg ", "1.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("caf\u00e9.jpg", "train/cafe\u0301.JPG"),
        ("s3://bucket//1.jpg", "s3://bucket//1.jpg"),
        (1, "1.jpg"),
    ],
)
def test_file_names_of_other_systems(tmp_path, name, image_id):
    images = [{"id": 9, "file_name": name}, {"id": 10, "file_name": "other.jpg"}]
    found = coco(tmp_path, images=images)
    assert [thing.label for thing in found.find(image_id).objects] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("segments", "box"),
    [
        ([[1, 2, 4, 2, 4, 3]], (1, 2, 4, 3)),
        ([[1, 2, 4, 2, 4, 3], [0.5, 2, 2, 2, 2, 3.5]], (0.5, 2, 4, 3.5)),
        ([1, 2, 4, 2, 4, 3], (1, 2, 4, 3)),
        ({"size": [4, 6], "counts": [0, 2, 2, 2, 18]}, (0, 0, 2, 2)),
        ({"size": [4, 6], "counts": [5, 2, 17]}, (1, 1, 2, 3)),
        ({"size": [4, 6], "counts": [3, 2, 19]}, (0, 0, 2, 4)),
        ({"size": [4, 6], "counts": "022B2"}, None),
        ({"size": [4, 6], "counts": [24]}, None),
        ({"size": [4, 6], "counts": [24, 0]}, None),
        ({"size": [4, 6], "counts": [5, 9]}, None),
        ({"size": ["a", 6], "counts": [24]}, None),
        ({"size": [4, 6], "counts": ["x"]}, None),
        ({"size": [10**9, 10**9], "counts": [0, 10**18]}, (0, 0, 10**9, 10**9)),
        ([[1, 2, 3]], None),
        ("polygon", None),
    ],
)
@pytest.mark.parametrize("bbox", [None, []])
def test_without_a_box_an_object_has_that_of_its_segments(tmp_path, segments, box, bbox):
    entry = {"id": 1, "image_id": 9, "category_id": 18, "segmentation": segments, "bbox": bbox}
    found = coco(tmp_path, annotations=[entry])
    assert listed(found)["000000000009.jpg"] == ([] if box is None else [("dog", box)])
    assert bool(found.problems) == (box is None)


def test_boxes_of_codes_are_those_of_their_masks():
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(3)
    for _ in range(50):
        height, width = random.integers(1, 9, 2)
        pixels = (random.random((height, width)) < random.choice([0.05, 0.3, 0.9])).astype(np.uint8)
        code = mask.encode(np.asfortranarray(pixels))
        code["size"] = [int(side) for side in code["size"]]
        rows, columns = np.nonzero(pixels)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None
        assert extent(code) == box
        if box:
            covered = region([Object("x", box)], height, width, "boxes")
            assert not (pixels & ~covered).any()


def test_rows_without_boxes_have_those_of_their_segments(tmp_path):
    rows = [{"image_id": "a", "objects": [{"label": "x", "box": None, "segments": [[0.0, 0.0, 2.0, 0.0, 2.0, 2.0]]}]}]
    (tmp_path / "m.parquet").write_bytes(parquet(rows))
    (tmp_path / "m.jsonl").write_text(json.dumps(rows[0]))
    for name in ("m.parquet", "m.jsonl"):
        assert listed(read_annotations(f"{tmp_path}/{name}")) == {"a": [("x", (0, 0, 2, 2))]}


@pytest.mark.parametrize("categories", [[], None, {}, [{"id": 1}], [{"name": "cat"}], [{"id": 1, "name": " "}]])
def test_without_names_of_categories_the_objects_are_of_nothing(tmp_path, categories):
    with pytest.raises(SessError, match=r'names no categories, so its 2 annotations are of nothing: give it "categor'):
        coco(tmp_path, categories=categories)
    assert coco(tmp_path, categories=categories, annotations=[]).by_id.keys() == BOTH.keys()


def test_a_category_without_a_name_costs_its_objects(tmp_path):
    found = coco(tmp_path, categories=[{"id": 1, "name": "cat"}, {"id": 18, "name": None}])
    assert listed(found)["000000000009.jpg"] == [CAT]
    assert found.problems == [("000000000009.jpg", "an object of a category without a name: 18")]


def test_a_category_with_several_names_costs_its_objects(tmp_path):
    names = [
        {"id": 18, "name": "wolf"},
        {"id": 18.0, "name": "dog"},
        {"id": 1, "name": "cat"},
        {"id": 1, "name": "cat"},
    ]
    found = coco(tmp_path, categories=names)
    assert listed(found)["000000000009.jpg"] == [CAT]
    assert found.problems == [("000000000009.jpg", "an object of a category with several names: 18")]


def test_a_box_that_ends_before_it_begins_is_left_out(tmp_path):
    entries = [{**COCO["annotations"][0], "bbox": box} for box in ([5, 5, -1, 3], [5, 5, 3, -1], [5, 5, 0, 0])]
    found = coco(tmp_path, annotations=entries)
    assert listed(found)["000000000009.jpg"] == [("dog", (5, 5, 5, 5))]
    assert [detail.partition(":")[0] for _, detail in found.problems] == [
        "an object with a box that ends before it begins"
    ] * 2


@pytest.mark.parametrize("name", [["a.jpg"], {"name": "a.jpg"}, None, "", 1.5])
def test_a_file_name_is_text(tmp_path, name):
    found = coco(tmp_path, images=[{"id": 9, "file_name": name}, COCO["images"][1]])
    assert list(found.by_id) == ["b.jpg"]
    assert found.problems[0] == ("image 9", "has no file_name")


@pytest.mark.parametrize(
    "header", ["image_id;label;x0;y0;x1;y1", "Image_ID,LABEL,X0,y0,x1,y1", "id\tlabel\tx0\ty0\tx1\ty1"]
)
def test_headers_of_tables(tmp_path, header):
    row = "a;dog;0;0;1;1" if ";" in header else "a\tdog\t0\t0\t1\t1" if "\t" in header else "a,dog,0,0,1,1"
    (tmp_path / "t.csv").write_text(f"{header}\n{row}\n")
    assert listed(read_annotations(f"{tmp_path}/t.csv")) == {"a": [("dog", (0, 0, 1, 1))]}


@pytest.mark.parametrize(("key", "kind"), [("caption", "captions"), ("segments_info", "panoptic segments")])
def test_other_kinds_of_coco_are_refused_by_name(tmp_path, key, kind):
    with pytest.raises(SessError, match=f"holds COCO's {kind}: give the file of instances"):
        coco(tmp_path, annotations=[{"id": 1, "image_id": 9, key: "a dog"}])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "gb2312", "cp1252"])
@pytest.mark.parametrize("declared", [True, False])
def test_xml_in_other_encodings(tmp_path, encoding, declared):
    name = "\u72d7" if encoding == "gb2312" else "caf\u00e9"
    document = xml([(name, 1, 1, 5, 5)], f"{name}.jpg")
    head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig").removesuffix("-le").removesuffix("-be")}"?>\n'
    (tmp_path / "1.xml").write_bytes(((head if declared else "") + document).encode(encoding))
    (tmp_path / "2.xml").write_text(xml([("dog", 1, 1, 5, 5)], "2.jpg"))
    found = read_annotations(str(tmp_path))
    if declared or encoding.startswith("utf"):
        assert listed(found) == {f"{name}.jpg": [(name, (0, 0, 5, 5))], "2.jpg": [("dog", (0, 0, 5, 5))]}
        assert listed(read_annotations(f"{tmp_path}/1.xml")).keys() == {f"{name}.jpg"}
    else:
        assert listed(found).keys() == {"2.jpg"}
        [(place, detail)] = found.problems
        assert (place, detail.partition("byte")[0]) == ("1.xml", "broken XML: ")
        assert detail.endswith("is no utf-8, save it as UTF-8")


@pytest.mark.parametrize(
    ("head", "good"),
    [
        ('<?xml version="1.0" encoding="utf-16"?>', True),  # as .NET writes it into UTF-8
        ('\n <?xml version="1.0"?>', True),
        ('<?xml version="1.0" encoding="klingon"?>', False),
        ('<?xml version="1.0" encoding="zlib"?>', False),
        ('<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE a+AD4-', False),
    ],
)
def test_declarations_that_are_wrong(tmp_path, head, good):
    (tmp_path / "1.xml").write_text(head + xml([("dog", 1, 1, 5, 5)], "1.jpg"))
    found = read_annotations(str(tmp_path))
    assert (listed(found).keys() == {"1.jpg"}, bool(found.problems)) == (good, not good)


def test_a_file_name_that_several_give_is_no_ones(tmp_path):
    for number in range(1, 4):
        (tmp_path / f"{number}.xml").write_text(xml([("dog", number, 1, 5, 5)], "copied.jpg"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "4.xml").write_text(xml([("dog", 4, 1, 5, 5)], "copied.jpg"))
    found = read_annotations(str(tmp_path))
    assert listed(found) == {
        "a/copied.jpg": [("dog", (3, 0, 5, 5))],
        **{str(number): [("dog", (number - 1, 0, 5, 5))] for number in range(1, 4)},
    }
    assert found.find("images/2.jpg").image_id == found.by_id["2"].image_id == "2"
    assert found.find("1.JPG").objects[0].box[0] == 0


@pytest.mark.parametrize(("mark", "difficult"), [("1", True), (" 1 ", True), ("true", True), ("0", False), ("", False)])
def test_marks_of_what_is_difficult(tmp_path, mark, difficult):
    document = xml([("dog", 1, 1, 5, 5)]).replace("</object>", f"<difficult>{mark}</difficult></object>")
    (tmp_path / "1.xml").write_text(document)
    [annotation] = read_annotations(str(tmp_path)).by_id.values()
    assert [thing.difficult for thing in annotation.objects] == [difficult]


def test_crowds(tmp_path):
    annotations = [{**COCO["annotations"][0], "iscrowd": mark} for mark in (1, 0, "1", None, True)]
    [first, _] = coco(tmp_path, annotations=annotations).by_id.values()
    assert [thing.crowd for thing in first.objects] == [True, False, True, False, True]


def test_texts_in_other_encodings(tmp_path):
    rows = "image_id,label,x0,y0,x1,y1\ncaf\u00e9.jpg,dog,0,0,1,1\n"
    for number, encoding in enumerate(("utf-8-sig", "utf-16")):
        (tmp_path / f"{number}.csv").write_bytes(rows.encode(encoding))
        (tmp_path / f"{number}.json").write_bytes(json.dumps(COCO).encode(encoding))
        assert listed(read_annotations(f"{tmp_path}/{number}.csv")) == {"caf\u00e9.jpg": [("dog", (0, 0, 1, 1))]}
        assert listed(read_annotations(f"{tmp_path}/{number}.json")) == BOTH
    (tmp_path / "l.csv").write_bytes(rows.encode("latin-1"))
    with pytest.raises(SessError, match=r"l\.csv is no UTF-8, as b'\\xe9' at byte 30 shows: save it as UTF-8"):
        read_annotations(f"{tmp_path}/l.csv")
