"""What of annotations is not explained is counted and said, with the reason."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pytest

from sess_ray import SessError
from sess_ray.io.annotations import Annotation, Annotations, Object
from sess_ray.io.items import ITEMS
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.explain.targets import annotated, label_classes, malformed, unclassed
from tests.io.pictures import PNG

FEW = {"model": "tests.fragile:model", "num_scales": 1}
BOX = (0.0, 0.0, 1.0, 1.0)


def annotations(problems=(), **labels):
    found = {name: Annotation(name, [Object(label, BOX) for label in given]) for name, given in labels.items()}
    return Annotations(found, list(problems), "boxes.json")


def explained(found, model):
    """Return the errors of images, and the labels that mean no class."""
    items = pa.Table.from_pylist([{"image_id": name, "uri": name} for name in found.by_id], ITEMS)
    unknown = Counter()
    tasks = annotated(items, found, label_classes(found, None, model), model, unknown=unknown)
    return tasks["error"].to_pylist(), unclassed(unknown, model)


def test_labels_without_a_class_are_counted(squeezenet):
    many = [f"thing {number}" for number in range(7)]
    found = annotations(a=["espresso", "unicorn", "unicorn"], b=["unicorn"], c=many, d=["espresso"])
    errors, told = explained(found, squeezenet.with_groups({}))
    assert errors == [
        None,
        "the image shows unicorn, and squeezenet1_1 has no such class",
        "the image shows thing 0, thing 1, thing 2, thing 3, thing 4 and 2 more, and squeezenet1_1 has no such class",
        None,
    ]
    assert "".join(told) == (
        "10 objects left out, squeezenet1_1 has no class for unicorn (3), thing 0 (1), thing 1 (1), thing 2 (1),"
        " thing 3 (1) and 3 more: a --class-map gives them one"
    )
    assert explained(annotations(a=["espresso"]), squeezenet.with_groups({})) == ([None], [])


def test_an_image_whose_objects_are_malformed_says_so(squeezenet):
    fault = "an object without a box of 4 numbers: 'cat', None"
    problems = [("b", fault), ("line 7", "is no object: 3")]
    errors, told = explained(annotations(problems, a=["espresso"], b=[], c=[]), squeezenet.with_groups({}))
    assert errors == [
        None,
        f"the image is annotated, with no object in it that can be used: {fault}",
        "the image is annotated, with no object in it",
    ]
    assert told == []


def test_malformed_entries_are_counted_by_reason():
    assert malformed(annotations()) == []
    problems = [(f"{number}.jpg", f"an object without a box of 4 numbers: 'cat', {number}") for number in range(3)]
    problems = [("annotation 7", "is of an image that is not listed: 404"), *problems]
    assert "".join(malformed(annotations(problems))) == (
        "4 entries of boxes.json left out: an object without a box of 4 numbers (3, the first: 0.jpg);"
        " is of an image that is not listed (1, the first: annotation 7)"
    )
    [line] = malformed(annotations([("x", f"reason {number}: y") for number in range(8)]))
    assert line.endswith("reason 4 (1, the first: x); and 3 other reasons")


def test_without_objects_no_class_map_is_asked_for(squeezenet):
    with pytest.raises(SessError, match=r"^boxes\.json has 2 images and no objects in them$"):
        label_classes(annotations(a=[], b=[]), None, squeezenet)
    problems = [("a", "an object without a box of 4 numbers: 'cat', None")]
    with pytest.raises(
        SessError, match=r"no objects in them; 1 entry of boxes\.json left out: an object without a box"
    ):
        label_classes(annotations(problems, a=[]), None, squeezenet)


@pytest.mark.slow
def test_the_job_says_what_is_left_out(tmp_path, capsys):
    from sess_ray.cli import command
    from sess_ray.cli.explain import app

    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(PNG)
    rows = [
        {"image_id": "a.png", "objects": [{"label": "3", "box": [0, 0, 1, 1]}, {"label": "4"}]},
        {"image_id": "b.png", "objects": [{"label": "person", "box": [0, 0, 1, 1]}]},
    ]
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = ("--input", tmp_path, "--annotations", tmp_path / "boxes.jsonl", "--output", tmp_path / "out")
    model = ("--model", "tests.faults.tiny:model", "--num-scales", 0, "--dry-run")
    assert command.run(app, list(map(str, (*given, *model)))) == 0
    out = capsys.readouterr().out
    assert "1 entry of" in out
    assert "an object without a box of 4 numbers (1, the first: a.png)\n" in out
    assert "1 object left out, Tiny has no class for person (1): a --class-map gives them one\n" in out
    assert "'b.png': the image shows person, and Tiny has no such class\n" in out


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("given", ["maps", "overlays/x.png", "../data/overlays/", "maps/*.png"])
def test_an_input_among_what_is_written_is_refused_and_stays(tmp_path, monkeypatch, given, overwrite):
    monkeypatch.chdir(tmp_path)
    pictures = [tmp_path / "data" / folder / "x.png" for folder in ("maps", "overlays")]
    for picture in pictures:
        picture.parent.mkdir(parents=True)
        picture.write_bytes(PNG)
    with pytest.raises(SessError, match=r"--input data/.* is where --output data/? is written, in (maps|overlays): "):
        prepare(ExplainConfig(input=f"data/{given}", output="data/", overwrite=overwrite, **FEW))
    assert all(picture.exists() for picture in pictures)
