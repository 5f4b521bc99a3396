"""Annotations and class maps of the shared data."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import (
    ClassMap,
)
from sess_ray.io.regions import region
from sess_ray.models.groups import members
from tests.io.annotated import shared


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


@pytest.mark.slow
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
