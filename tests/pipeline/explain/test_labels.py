"""Which classes labels mean: those of tables that name them, and those of folders."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from torch import nn

from sess_ray import SessError
from sess_ray.io.inputs import read_inputs
from sess_ray.io.items import ITEMS
from sess_ray.models import Model
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import _folders, prepare
from sess_ray.pipeline.explain.targets import resolve
from tests.pipeline.explain.jobs import picture


def few(*names, count=3):
    """A model of few classes, whose names may be unknown; of their numbers alone something is asked."""
    size = len(names) or count
    return Model(nn.Identity(), "few", "layer", "NCHW", size, 8, (0.5,) * 3, (0.5,) * 3, classes=names)


def labelled(*labels):
    rows = [{"image_id": str(i), "uri": "u", "labels": [label]} for i, label in enumerate(labels)]
    return pa.Table.from_pylist(rows, ITEMS)


def asked(tasks):
    """The classes of each image, or why there are none."""
    rows = zip(tasks["targets"].to_pylist(), tasks["error"].to_pylist(), strict=True)
    return [error or [alternatives[0] for alternatives in targets] for targets, error in rows]


INSECTS = ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("names", "model", "labels", "expected"),
    [
        (INSECTS, few("ant", "bee", "cow"), "ant bee cow", [[0], [1], [2]]),
        (INSECTS, few("cow", "Ant", "bee"), "ant bee cow", [[1], [2], [0]]),  # by name, not by number
        (INSECTS, few("bee", "dog", "emu", "cow"), "bee cow", [[0], [3]]),
        (INSECTS, few(), "ant bee cow", [[0], [1], [2]]),  # as many as the model has
        (INSECTS, few("x", "y", "z"), "cow", [[2]]),
        (INSECTS, few("ant", "y", "z"), "ant cow", [[0], [2]]),  # in order, as far as names tell
        (("0", "1", "2"), few(), "2 0", [[2], [0]]),
        (("1", "2", "3"), few("1", "2", "3"), "1 3", [[0], [2]]),
        (("3", "2", "1"), few("1", "2", "3"), "1 3", [[0], [2]]),
        (("ant, Formicidae", "bee", "cow"), few("emu", "ant", "bee"), "ant,_Formicidae bee", [[1], [2]]),
    ],
)
def test_classes_that_a_table_names_are_the_models_of_these_names(names, model, labels, expected):
    items = labelled(*(label.replace("_", " ") for label in labels.split()))
    assert asked(resolve(items, "label", model, class_names=[names])) == expected


def test_of_imagenets_names_one_between_commas_is_enough(squeezenet):
    names = ("goldfish, Carassius auratus", "tabby, tabby cat", "unicorn")
    tasks = resolve(labelled(*names), "label", squeezenet.with_groups({}), class_names=[names])
    assert asked(tasks)[:2] == [[1], [281]]
    assert "unknown class 'unicorn'" in tasks["error"][2].as_py()


def test_a_name_may_be_a_group_which_is_learned_where_it_is_asked_for(squeezenet):
    model = squeezenet.with_groups({})
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert asked(resolve(labelled("dog", "frog"), "label", model, class_names=[names])) == [[1000], [1001]]
    assert [group.name for group in model.groups] == ["dog", "frog"]


@pytest.mark.parametrize("model", [few("x", "y", "z", "w"), few(count=1000)])
def test_names_that_are_not_the_models_are_refused_unless_the_sizes_agree(model):
    with pytest.raises(SessError, match=r"of 3 classes \(ant, bee, cow\) whose names few, of .* does not know: give"):
        resolve(labelled("ant"), "label", model, class_names=[INSECTS])
    assert asked_top(resolve(labelled("ant"), "top1", model, class_names=[INSECTS])) == ["top1"]
    assert asked_top(resolve(labelled("ant"), "auto", model, class_names=[INSECTS])) == ["top1"]


def asked_top(tasks):
    return tasks["top"].to_pylist()


def test_a_class_map_knows_what_a_table_names(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"ant": 3, "bee": [1, 2]}))
    model = few(count=4)
    tasks = resolve(labelled("ant", "bee", "cow"), "label", model, str(path), [INSECTS])
    assert asked(tasks)[:2] == [[3], [4]]
    assert "'cow' must be an index" in tasks["error"][2].as_py()


def test_tables_that_name_the_same_classes_in_other_orders():
    orders = [INSECTS, ("cow", "bee", "ant")]
    assert asked(resolve(labelled("cow"), "label", few("ant", "cow"), class_names=orders)) == [[1]]
    with pytest.raises(SessError, match="the same classes in different orders"):
        resolve(labelled("cow"), "label", few(), class_names=orders)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("1", [0]),
        ("0", [0]),  # no name
        ("1.0", [1]),
        ("7", "class 7 is out of range: few has classes 0 to 2"),
        ("nan", "the image has no label"),
        ("None", "the image has no label"),
    ],
)
def test_a_number_is_a_name_before_it_is_an_index(label, expected):
    assert asked(resolve(labelled(label, "2"), "label", few("1", "x", "2"))) == [expected, [2]]


def test_a_class_map_may_say_that_a_number_is_an_index(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"1": "1-1", "2": "2"}))
    assert asked(resolve(labelled("1", "2"), "label", few("1", "2", "3"), str(path))) == [[1], [1]]


def test_a_class_may_be_called_like_nothing():
    assert asked(resolve(labelled("nan", "None", "null"), "label", few("none", "NaN", "x"))) == [
        [1],
        [0],
        "the image has no label",
    ]


def test_classes_of_one_name_are_refused():
    with pytest.raises(SessError, match="are of 3 classes, of which several are named 'ant': rename one"):
        resolve(labelled("ant"), "label", few(), class_names=[("ant", "ant", "cow")])


def test_targets_may_be_missing_too():
    rows = [{"image_id": name, "uri": name, "targets": [name]} for name in ("nan", "bee")]
    tasks = resolve(pa.Table.from_pylist(rows, ITEMS), "auto", few(*INSECTS))
    assert (tasks["top"].to_pylist(), tasks["targets"].to_pylist()) == (["top1", None], [None, [[1]]])


def test_several_labels_are_several_targets():
    rows = [{"image_id": "a", "uri": "a", "labels": ["cow", "ant", "nan", "cow"]}]
    assert asked(resolve(pa.Table.from_pylist(rows, ITEMS), "label", few(*INSECTS))) == [[2, 0]]


def test_what_a_manifest_says_wrong_of_an_image_is_its_error_whatever_is_explained():
    rows = [{"image_id": "a", "uri": "a"}, {"image_id": "b", "uri": "b", "error": "it names no image"}]
    for targets in ("auto", "top1", "bee"):
        tasks = resolve(pa.Table.from_pylist(rows, ITEMS), targets, few(*INSECTS))
        assert tasks["error"].to_pylist() == [None, "it names no image"]
        assert tasks["stage"].to_pylist() == [None, "input"]


# --- folders ---


@pytest.fixture
def by_folder(tmp_path):
    """Make files, and find what to explain of them by their folders."""

    def find(files, model, limit=None, url="", **options):
        for name in files.split():
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        place = f"{tmp_path}/in{url}"
        items = read_inputs(place, limit).images
        config = ExplainConfig(input=place, limit=limit, targets="label")
        tasks = resolve(items, "label", model, folders=lambda: _folders(config), **options)
        return dict(zip(tasks["image_id"].to_pylist(), asked(tasks), strict=True))

    return find


@pytest.mark.parametrize("model", [few(), few(*INSECTS), few("ANT", "BEE", "COW"), few("x", "y", "z")])
def test_the_class_is_the_folder_directly_below_the_input(by_folder, model):
    found = by_folder("ant/a/1.jpg ant/b/2.jpg bee/a/3.jpg cow/c/4.jpg", model)
    assert list(found.values()) == [[0], [0], [1], [2]]
    assert by_folder("", model, url="/*/*/*.jpg") == found
    assert by_folder("", model, limit=2) == dict(list(found.items())[:2])


def test_a_limit_leaves_the_classes_as_they_are(by_folder):
    files = "ant/1.jpg bee/2.jpg cow/3.jpg cow/4.jpg"
    assert by_folder(files, few(), limit=2) == {"ant/1.jpg": [0], "bee/2.jpg": [1]}
    assert by_folder(files, few("bee", "cow", "ant"), limit=2) == {"ant/1.jpg": [2], "bee/2.jpg": [0]}
    assert by_folder(files, few(), limit=1, url="/*/*.jpg") == {"ant/1.jpg": [0]}
    with pytest.raises(SessError, match="the class names of few are unknown"):
        by_folder(f"{files} dog/5.jpg", few(), limit=2)


def test_hidden_folders_are_no_classes(by_folder):
    found = by_folder("ant/1.jpg ant/.ipynb_checkpoints/1-checkpoint.jpg .thumbs/2.jpg bee/3.jpg cow/4.jpg", few())
    assert found == {"ant/1.jpg": [0], "bee/3.jpg": [1], "cow/4.jpg": [2]}
    assert by_folder("", few(), url="/**/*.jpg") == found


def test_numbers_are_names_first(by_folder):
    files = "1/a.jpg 2/b.jpg 3/c.jpg"
    assert list(by_folder(files, few("1", "2", "3")).values()) == [[0], [1], [2]]
    assert list(by_folder(files, few("3", "2", "1")).values()) == [[2], [1], [0]]
    assert list(by_folder(files, few(count=9)).values()) == [[1], [2], [3]]
    with pytest.raises(
        SessError, match=r"folders 1, 2, 3 may be indices of classes, or the 3 classes in sorted order: gi"
    ):
        by_folder(files, few())
    assert list(by_folder("0/a.jpg", few(count=4)).values()) == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            "val/ant/1.jpg val/bee/2.jpg train/cow/3.jpg",
            {"val/ant/1.jpg": [0], "val/bee/2.jpg": [1], "train/cow/3.jpg": [2]},
        ),
        ("train/ant/images/1.jpg", {"train/ant/images/1.jpg": [0]}),
        ("ant/bee/1.jpg", {"ant/bee/1.jpg": [0]}),
        (
            "ant/1.jpg dog/bee/2.jpg",
            {"ant/1.jpg": [0], "dog/bee/2.jpg": "unknown class 'dog': choose one of: ant, bee, cow (few)"},
        ),
        ("x/ant/1.jpg x/2.jpg", {"x/2.jpg": "the image has no label", "x/ant/1.jpg": [0]}),
    ],
)
def test_the_outermost_folders_of_which_one_is_a_class_are_the_classes(by_folder, files, expected):
    assert by_folder(files, few(*INSECTS)) == expected


def test_images_in_no_folder_have_the_name_of_the_input(by_folder):
    assert by_folder("ant/1.jpg ant/2.jpg", few(*INSECTS), url="/ant") == {"1.jpg": [0], "2.jpg": [0]}


def test_the_name_of_the_input_is_no_class_beside_folders(by_folder):
    found = by_folder("1.jpg ant/1.jpg bee/1.jpg cow/1.jpg", few())
    assert list(found.values())[1:] == [[0], [1], [2]]
    assert "'in' must be an index" in found["1.jpg"]
    with pytest.raises(SessError, match="no image has a label that few knows"):
        by_folder("", few(count=4))


def test_folders_that_say_nothing_are_no_guess(by_folder):
    with pytest.raises(SessError, match="no image has a label that few knows, the first: unknown class 'dog'"):
        by_folder("dog/1.jpg emu/2.jpg", few(*INSECTS))


def test_a_table_without_labels_says_which_columns_it_has(tmp_path):
    (tmp_path / "m.csv").write_text("uri,species\na.png,ant\n")
    settings = {"input": f"{tmp_path}/m.csv", "output": f"{tmp_path}/out", "model": "tests.fragile:model"}
    with pytest.raises(SessError) as refusal:
        prepare(ExplainConfig(targets="label", **settings))
    assert str(refusal.value) == (
        f"{tmp_path}/m.csv has no column of labels (label, class, class_index); it has: uri, species:"
        " give one as --label-column"
    )
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
    job = prepare(
        ExplainConfig(targets="label", label_column="species", class_names=f"{tmp_path}/names.txt", **settings)
    )
    assert job.tasks["targets"].to_pylist() == [[[0]]]


@pytest.mark.parametrize(
    ("model", "told"),
    [(few(), "ant is class 0, bee is class 1, cow is class 2"), (few("x", "y", "z"), "ant is x, bee")],
)
def test_that_names_are_taken_in_order_is_said(by_folder, caplog, model, told):
    with caplog.at_level("WARNING", "sess_ray"):
        by_folder("ant/1.jpg bee/1.jpg cow/1.jpg", model)
        resolve(labelled("ant"), "label", model, class_names=[INSECTS])
        resolve(labelled("ant"), "label", few(*INSECTS), class_names=[INSECTS])
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all(line.startswith(f"the labels are taken as the classes of few in their order: {told}") for line in lines)


def test_a_label_may_have_synonyms_behind_commas(squeezenet):
    tasks = resolve(
        labelled("tench, Tinca tinca", "tench, goldfish", "Unicorn, horn"), "label", squeezenet.with_groups({})
    )
    assert tasks["targets"].to_pylist()[0] == [[0]]
    assert tasks["error"].to_pylist()[1].startswith("unknown class 'tench, goldfish'")
