"""Which classes annotations ask for."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from sess_ray import SessError
from sess_ray.io.annotations import Annotation, Annotations, Object
from sess_ray.io.items import ITEMS
from sess_ray.models.groups import Group
from sess_ray.pipeline.explain.stages import succeeded, targets_of
from sess_ray.pipeline.explain.targets import annotated, label_classes, resolve

BOX = (0, 0, 9, 9)


def items(names):
    return pa.Table.from_pylist([{"image_id": name, "uri": name} for name in names], ITEMS)


def annotations(**labels):
    found = {name: Annotation(name, [Object(label, BOX) for label in given]) for name, given in labels.items()}
    return Annotations(found, source="boxes.json")


def test_each_label_once_and_of_its_classes_a_group_or_the_best(squeezenet, tmp_path):
    found = annotations(a=["cat", "person", "cat", "cup"], b=["person"], c=[])
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"cat": [282, "281", "285-287"], "cup": "espresso"}))
    classes = label_classes(found, str(path), squeezenet)
    assert classes == {"cat": (282, 281, 285, 286, 287), "cup": (967,), "person": ()}
    model = squeezenet.with_groups({"other": (1, 2)})
    tasks = annotated(items("abcd"), found, classes, model)
    assert tasks["targets"].to_pylist() == [[[1001], [967]], None, None, None]
    assert model.groups[1] == Group("cat", (281, 282, 285, 286, 287))
    assert tasks["error"].to_pylist() == [
        None,
        "the image shows person, and squeezenet1_1 has no such class",
        "the image is annotated, with no object in it",
        "the image is not annotated",
    ]
    best = annotated(items("a"), found, classes, squeezenet, "best")
    assert best["targets"].to_pylist() == [[[282, 281, 285, 286, 287], [967]]]
    assert squeezenet.groups == ()


@pytest.mark.parametrize(
    ("targets", "numbers", "groups"),
    [
        ("281", [281], []),
        ("tabby,espresso", [281, 967], []),
        ("dog=151-153+155,tabby", [1000, 281], [("dog", (151, 152, 153, 155))]),
        ("dog", [1000], [("dog", tuple(range(151, 269)))]),
        ("dog,n02084071", [1000], [("dog", tuple(range(151, 269)))]),
        ("cat=tabby+282,bear", [1000, 1001], [("cat", (281, 282)), ("bear", (294, 295, 296, 297))]),
        ("animal,rocket", [1000, 657], [("animal", (1, 2, 281))]),  # of the class map
    ],
)
def test_targets_in_words(targets, numbers, groups, squeezenet, tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("label,index\nanimal,281\nanimal,1-2\nrocket,missile\nnothing,1\n")
    model = squeezenet.with_groups({})
    tasks = resolve(items("ab"), targets, model, str(path))
    assert tasks["targets"].to_pylist() == [[[number] for number in numbers]] * 2
    assert [(group.name, group.classes) for group in model.groups] == groups


def test_a_name_means_one_thing(squeezenet):
    with pytest.raises(SessError, match="dog already means 2 other classes: rename one"):
        resolve(items("a"), "dog=151-152,dog=153-154", squeezenet.with_groups({}))


def test_a_manifest_may_name_groups_of_its_own(squeezenet):
    table = pa.Table.from_pylist(
        [
            {"image_id": "a", "uri": "a", "targets": ["dog=151-152", "7"]},
            {"image_id": "b", "uri": "b", "labels": ["bear"]},
            {"image_id": "c", "uri": "c", "targets": ["unicorn"]},
        ],
        ITEMS,
    )
    model = squeezenet.with_groups({})
    tasks = resolve(table, "auto", model)
    assert tasks["targets"].to_pylist() == [[[1000], [7]], [[1001]], None]
    assert "unknown class 'unicorn'" in tasks["error"][2].as_py()
    assert [group.name for group in model.groups] == ["dog", "bear"]


def test_the_label_of_a_shards_member_may_be_a_node_of_wordnet(squeezenet):
    row = {"top": None, "targets": None, "label": "bear"}
    assert targets_of(row, squeezenet) == [{"bear": (294, 295, 296, 297)}]
    assert targets_of({**row, "label": "tabby"}, squeezenet) == [{"tabby": (281,)}]


def test_without_a_map_labels_are_indices_or_names_of_classes_or_nodes(squeezenet):
    assert label_classes(annotations(a=["7", "espresso", "unicorn", "bear", "car"]), None, squeezenet) == {
        "7": (7,),
        "bear": (294, 295, 296, 297),
        "car": (),  # two nodes of WordNet have the name
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


@pytest.mark.slow
def test_what_is_stored_of_a_group_is_the_same_in_every_run(lite0, photographs):
    from sess_ray import SESS

    rows = []
    for targets in ([{"cat": (285, 281)}], [7, {"other": (1, 2)}, {"a": (281, 285)}, {"b": (281, 285)}]):
        [found] = SESS(lite0, num_scales=None, device="cpu").explain([photographs["chelsea.png"]], [targets])
        rows.append(succeeded({"image_id": "cat", "uri": "cat.png", "height": 300, "width": 451}, found, 1.0)["maps"])
    assert [len(maps) for maps in rows] == [1, 3]  # groups of the same classes are one
    first, second = rows[0][0], rows[1][2]
    assert first["target"] == second["target"] < 0
    assert first["target_name"] == "cat"
    assert first["target_classes"] == (281, 285)
    assert rows[1][0]["target_classes"] == (7,)
    assert len({one["target"] for one in rows[1]}) == 3


def test_what_the_model_chooses_stands_alone(squeezenet):
    for targets in ("top1, tabby", "tabby,p>0.5"):
        with pytest.raises(
            SessError, match=r"^targets '(top1|p>0.5)' stand alone: give them as they are, not in a list$"
        ):
            resolve(items("a"), targets, squeezenet)
    with pytest.raises(SessError, match=r"unknown class 'Tabby Cats': did you mean tabby"):
        resolve(items("a"), "Tabby Cats", squeezenet)
