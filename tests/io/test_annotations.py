"""The annotations of an image: found by its id, and as a mask."""

from __future__ import annotations

import pickle
import sys
import time

import numpy as np
import pytest

from sess_ray import SessError
from sess_ray.io.annotations import (
    Annotation,
    Annotations,
    Object,
)
from sess_ray.io.regions import region


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
    ids = [f"{folder}/{number}.jpg" for folder in range(50) for number in range(1000)]
    annotations = pickle.loads(pickle.dumps(of(*ids)))
    start = time.process_time()
    assert all(annotations.find(f"data/{image_id}").image_id == image_id for image_id in ids)
    assert annotations.find("data/1.jpg") is None
    assert time.process_time() - start < 5
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
