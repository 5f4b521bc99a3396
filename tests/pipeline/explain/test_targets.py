"""Which classes annotations ask for."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from sess_ray import SessError
from sess_ray.io.annotations import Annotation, Annotations, Object
from sess_ray.io.inputs import ITEMS
from sess_ray.pipeline.explain.stages import succeeded
from sess_ray.pipeline.explain.targets import annotated, label_classes

BOX = (0, 0, 9, 9)


def items(names):
    return pa.Table.from_pylist([{"image_id": name, "uri": name} for name in names], ITEMS)


def annotations(**labels):
    found = {name: Annotation(name, [Object(label, BOX) for label in given]) for name, given in labels.items()}
    return Annotations(found, source="boxes.json")


def test_each_label_once_and_of_its_classes_the_model_chooses(squeezenet, tmp_path):
    found = annotations(a=["cat", "person", "cat", "cup"], b=["person"], c=[])
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"cat": [281, 282], "cup": "espresso"}))
    classes = label_classes(found, str(path), squeezenet)
    assert classes == {"cat": (281, 282), "cup": (967,), "person": ()}
    tasks = annotated(items("abcd"), found, classes, squeezenet)
    assert tasks["targets"].to_pylist() == [[[281, 282], [967]], None, None, None]
    assert tasks["error"].to_pylist() == [
        None,
        "annotated is person, no class of squeezenet1_1",
        "annotated is nothing, no class of squeezenet1_1",
        "the image is not annotated",
    ]


def test_without_a_map_labels_are_indices_or_names(squeezenet):
    assert label_classes(annotations(a=["7", "espresso", "unicorn"]), None, squeezenet) == {
        "7": (7,),
        "espresso": (967,),
        "unicorn": (),
    }


def test_nothing_to_explain_is_said_before_any_work(squeezenet):
    found = annotations(a=["unicorn"])
    with pytest.raises(SessError, match=r"knows no label of boxes.json \('unicorn'\): give a --class-map"):
        label_classes(found, None, squeezenet)
    with pytest.raises(SessError, match="no image has an annotation that squeezenet1_1 knows"):
        annotated(items("b"), found, {"unicorn": ()}, squeezenet)


def test_labels_that_meet_in_one_class_are_one_row(lite0, photographs):
    from sess_ray import SESS

    [found] = SESS(lite0, num_scales=None, device="cpu").explain([photographs["chelsea.png"]], [[(281, 282), 282]])
    assert [explanation.target for explanation in found] == [282, 282]
    row = succeeded({"image_id": "cat", "uri": "cat.png", "height": 300, "width": 451}, found, 1.0)
    assert [explained["target"] for explained in row["maps"]] == [282]
