from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sess_ray import SessError
from sess_ray.labels import Thresholds, as_coco, label_image
from sess_ray.metrics.localization import reaches
from sess_ray.pipeline.export.job import file_names

# Two parts from 0.5 on: one of four pixels that is weaker, one of two that holds the maximum.
MAP = np.array(
    [
        [0.1, 0.1, 0.1, 0.1, 0.1],
        [0.1, 0.6, 0.7, 0.1, 0.1],
        [0.1, 0.6, 0.6, 0.1, 0.9],
        [0.1, 0.1, 0.1, 0.1, 0.8],
    ]
)


def test_boxes_and_masks_are_those_of_a_map_worked_out_by_hand():
    # Taken from 0 to 1 the values are 0, 0.625, 0.75, 1 and 0.875.
    found = as_coco(MAP, Thresholds(mask=0.7, box=0.6))
    assert found["bbox"] == [1, 1, 2, 2]
    assert found["area"] == 3
    assert found["iscrowd"] == 0
    assert found["segmentation"]["size"] == [4, 5]
    assert np.argwhere(coco.decode(found["segmentation"])).tolist() == [[1, 2], [2, 4], [3, 4]]
    assert as_coco(MAP, Thresholds(mask=0.7, box=0.9))["bbox"] == [4, 2, 1, 1]
    assert as_coco(np.full((3, 3), 0.5), Thresholds(0.2, 0.2)) is None
    assert reaches(MAP, 0.75).sum() == 3
    assert not reaches(np.ones((2, 2)), 0.0).any()


def opened(png):
    return Image.open(io.BytesIO(png))


def test_the_stronger_map_has_a_pixel_and_the_first_of_equals():
    other = np.zeros_like(MAP)
    other[1] = [0, 0.7, 1, 1, 0]
    other[2, 4] = 0.9
    picture = opened(label_image([(3, MAP), (7, other)], 0.6, classes=20))
    assert picture.mode == "P"
    assert np.asarray(picture).tolist() == [[0, 0, 0, 0, 0], [0, 7, 7, 7, 0], [0, 3, 3, 0, 3], [0, 0, 0, 0, 3]]
    assert picture.convert("RGB").getpixel((1, 1)) == (128, 128, 128)
    assert picture.convert("RGB").getpixel((1, 2)) == (128, 128, 0)


def test_more_classes_than_a_byte_has_take_two():
    assert opened(label_image([(254, MAP)], 0.6, classes=254)).mode == "P"
    picture = opened(label_image([(1000, MAP)], 0.6, classes=1000))
    assert picture.mode == "I;16"
    assert np.unique(np.asarray(picture)).tolist() == [0, 1000]


@pytest.mark.parametrize("thresholds", [(-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_thresholds_are_shares(thresholds):
    with pytest.raises(SessError, match="0 to 1"):
        Thresholds(*thresholds)


@pytest.mark.parametrize(
    "image_id", ["../../etc/passwd.jpg", "/etc/x.png", "a/../b.jpg", ".hidden.jpg", 'x"><img>.jpg', "a\nb.jpg", "a\\b"]
)
def test_no_label_image_leaves_the_output(image_id):
    [name] = file_names(iter([image_id])).values()
    assert name.startswith("image-")
    assert name.removeprefix("image-").isalnum()


def test_label_images_do_not_replace_one_another():
    ids = ["a.jpg", "a.png", "A.gif", "b/c.jpg", "b.c.jpg", "a.jpg.png", "member"]
    names = file_names(iter(ids))
    assert len({name.lower() for name in names.values()}) == len(ids)
    assert (names["b/c.jpg"], names["member"]) == ("b/c", "member")
