from __future__ import annotations

import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.file_names import file_names
from sess_ray.labels import Labelled, as_coco, as_voc, label_image, objects_of, parts, shown, tight_box
from sess_ray.metrics.localization import reaches

# Two parts from 0.5 on: one of four pixels that is weaker, one of two that holds the maximum.
MAP = np.array(
    [
        [0.1, 0.1, 0.1, 0.1, 0.1],
        [0.1, 0.6, 0.7, 0.1, 0.1],
        [0.1, 0.6, 0.6, 0.1, 0.9],
        [0.1, 0.1, 0.1, 0.1, 0.8],
    ]
)
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
# Few values: equal ones, maps without contrast and masks of many parts come often.
MAPS = SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])))


def objects(maps, threshold, *, instances=False, min_part=0.0):
    """Return the objects of maps {class: map}."""
    return [
        Labelled(number, mask, saliency, 0.5)
        for number, saliency in maps.items()
        for mask in objects_of(reaches(saliency, threshold), instances=instances, min_part=min_part)
    ]


def opened(png):
    return Image.open(io.BytesIO(png))


def test_boxes_and_masks_are_those_of_a_map_worked_out_by_hand():
    # Taken from 0 to 1 the values are 0, 0.625, 0.75, 1 and 0.875.
    found = as_coco(reaches(MAP, 0.7))
    assert found["bbox"] == [2, 1, 3, 3]
    assert found["area"] == 3
    assert found["iscrowd"] == 0
    assert found["segmentation"]["size"] == [4, 5]
    assert np.argwhere(coco.decode(found["segmentation"])).tolist() == [[1, 2], [2, 4], [3, 4]]
    assert reaches(MAP, 0.75).sum() == 3
    assert not reaches(np.ones((2, 2)), 0.0).any()


def test_parts_become_objects_or_are_left_out():
    mask = reaches(MAP, 0.6)
    assert [tight_box(part) for part in parts(mask, 0.0)] == [(1, 1, 3, 3), (4, 2, 5, 4)]
    assert [tight_box(part) for part in objects_of(mask, instances=True, min_part=0.5)] == [(1, 1, 3, 3), (4, 2, 5, 4)]
    assert [tight_box(part) for part in objects_of(mask, instances=True, min_part=0.51)] == [(1, 1, 3, 3)]
    [whole] = objects_of(mask, instances=False, min_part=0.5)
    assert tight_box(whole) == (1, 1, 5, 4)
    [largest] = objects_of(mask, instances=False, min_part=0.51)
    assert tight_box(largest) == (1, 1, 3, 3)
    assert objects_of(np.zeros((2, 2), bool), instances=True, min_part=0.0) == []


def neighbours(mask):
    """Return the connected parts of a mask as sets of pixels, by flood fill."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    found = []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        found.append(part)
    return found


@pytest.mark.slow
@given(MAPS, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
@settings(deadline=None, derandomize=True)
def test_instances_are_the_connected_parts(saliency, min_part):
    mask = reaches(saliency, 0.5)
    all_parts = neighbours(mask)
    least = min_part * max(map(len, all_parts), default=0)
    expected = {frozenset(part) for part in all_parts if len(part) >= least}
    masks = objects_of(mask, instances=True, min_part=min_part)
    assert {frozenset(map(tuple, np.argwhere(part).tolist())) for part in masks} == expected
    sizes = [int(part.sum()) for part in masks]
    assert sizes == sorted(sizes, reverse=True)
    union = objects_of(mask, instances=False, min_part=min_part)
    assert [set(map(tuple, np.argwhere(part).tolist())) for part in union] == (
        [set().union(*expected)] * bool(expected)
    )


@pytest.mark.slow
@given(MAPS, st.sampled_from([0.0, 0.25, 0.6, 1.0]), st.booleans(), st.sampled_from([0.0, 0.4]))
@settings(deadline=None, derandomize=True)
def test_the_box_of_coco_is_that_of_its_own_mask(saliency, threshold, instances, min_part):
    for entry in objects({1: saliency}, threshold, instances=instances, min_part=min_part):
        found = as_coco(entry.mask)
        decoded = coco.decode(found["segmentation"])
        np.testing.assert_array_equal(decoded, entry.mask)
        x0, y0, x1, y1 = Image.fromarray(decoded * 255).getbbox()
        assert found["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert found["bbox"] == coco.toBbox(found["segmentation"]).tolist()
        assert found["area"] == decoded.sum()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("voc")


@given(st.data(), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=50)
def test_pascal_vocs_boxes_are_those_of_its_own_pictures(folder, data, instances):
    shape = data.draw(SHAPES)
    values = arrays(np.float32, shape, elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1]))
    found = objects({2: data.draw(values), 3: data.draw(values)}, 0.5, instances=instances)
    if not found:
        return
    places, visible = shown(found)
    numbers = np.array([0, *(entry.number for entry in visible)])
    classes, parts_shown = opened(label_image(numbers[places], 3)), opened(label_image(places, len(visible)))
    names = {2: "cat & dog", 3: "<cup>"}
    content = as_voc("a/b.jpg", places, [names[entry.number] for entry in visible])
    (folder / "b.xml").write_bytes(content)
    annotations = read_annotations(str(folder / "b.xml"))
    assert annotations.problems == []
    read = annotations.find("b.jpg")
    assert (read.height, read.width) == shape
    assert len(read.objects) == len(visible)
    for place, (thing, entry) in enumerate(zip(read.objects, visible, strict=True), 1):
        pixels = np.asarray(parts_shown) == place
        assert thing.box == Image.fromarray(pixels.astype(np.uint8)).getbbox()
        assert thing.label == names[entry.number]
        assert (np.asarray(classes)[pixels] == entry.number).all()
        assert (entry.mask | ~pixels).all()
    covered = np.logical_or.reduce([entry.mask for entry in found])
    np.testing.assert_array_equal(np.asarray(classes) > 0, covered)


def test_xml_is_that_of_pascal_voc():
    root = ET.fromstring(as_voc("a/b\x00.jpg", np.array([[0, 0, 1], [0, 1, 1]]), ["cat"]))
    assert [root.findtext(f"size/{side}") for side in ("width", "height", "depth")] == ["3", "2", "3"]
    assert [root.findtext(f"object/bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")] == ["2", "1", "3", "2"]
    assert root.findtext("filename") == "a/b?.jpg"


def test_the_stronger_map_has_a_pixel_and_the_first_of_equals():
    other = np.zeros_like(MAP)
    other[1] = [0, 0.7, 1, 1, 0]
    other[2, 4] = 0.9
    places, visible = shown(objects({3: MAP, 7: other}, 0.6))
    assert places.tolist() == [[0, 0, 0, 0, 0], [0, 2, 2, 2, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 1]]
    assert [entry.number for entry in visible] == [3, 7]
    picture = opened(label_image(places, classes := 20))
    assert (picture.mode, classes) == ("P", 20)
    assert picture.convert("RGB").getpixel((1, 1)) == (0, 128, 0)
    assert picture.convert("RGB").getpixel((1, 2)) == (128, 0, 0)


def test_an_object_under_others_is_not_shown():
    places, visible = shown(objects({1: MAP / 2, 2: MAP, 5: MAP * 0.9}, 0.6))
    assert [entry.number for entry in visible] == [2]
    assert np.unique(places).tolist() == [0, 1]


def test_more_numbers_than_a_byte_has_take_two():
    assert opened(label_image(np.array([[0, 254]]), 254)).mode == "P"
    picture = opened(label_image(np.array([[0, 1000]]), 1000))
    assert picture.mode == "I;16"
    assert np.unique(np.asarray(picture)).tolist() == [0, 1000]


@pytest.mark.parametrize(
    "image_id", ["../../etc/passwd.jpg", "/etc/x.png", "a/../b.jpg", ".hidden.jpg", 'x"><img>.jpg', "a\nb.jpg", "a\\b"]
)
def test_no_label_image_leaves_the_output(image_id):
    [name] = file_names([image_id]).values()
    assert name.startswith("image-")
    assert name.removeprefix("image-").isalnum()


def test_label_images_do_not_replace_one_another():
    ids = ["a.jpg", "a.png", "A.gif", "b/c.jpg", "b.c.jpg", "a.jpg.png", "member"]
    names = file_names(ids)
    assert len({name.lower() for name in names.values()}) == len(ids)
    assert (names["b/c.jpg"], names["member"]) == ("b/c", "member")
