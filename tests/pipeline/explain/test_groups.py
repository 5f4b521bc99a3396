"""Annotated labels that mean several classes, from COCO's file to the evaluation."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import sess_ray
from sess_ray import SESS
from sess_ray.io.store import stored_target
from sess_ray.metrics.perturbation import Deletion, at_input_size
from sess_ray.pipeline.evaluate import job as evaluate
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.prepare import prepare as prepare_evaluation
from sess_ray.pipeline.evaluate.results import results_of
from sess_ray.pipeline.explain import job as explain
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare

pytestmark = pytest.mark.usefixtures("ray_session")

CATS, CUPS = (281, 282, 283, 284, 285), (504, 968)
NAMES = {1: "cat", 2: "cup", 3: "hat"}
BOXES = {"cat.png": [(1, [90, 40, 200, 150])], "cup.png": [(2, [40, 20, 180, 190]), (3, [0, 0, 9, 9])]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, photographs):
    root = tmp_path_factory.mktemp("coco")
    (root / "images").mkdir()
    for name, source in (("cat.png", "chelsea.png"), ("cup.png", "coffee.png")):
        Image.fromarray(photographs[source]).resize((320, 240)).save(root / "images" / name)
    things = [
        {"id": 10 * number + place, "image_id": number, "category_id": category, "bbox": box, "iscrowd": 0}
        for number, boxes in enumerate(BOXES.values())
        for place, (category, box) in enumerate(boxes)
    ]
    instances = {
        "images": [{"id": number, "file_name": name, "width": 320, "height": 240} for number, name in enumerate(BOXES)],
        "annotations": [{**thing, "segmentation": [], "area": thing["bbox"][2] * thing["bbox"][3]} for thing in things],
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
    }
    (root / "instances.json").write_text(json.dumps(instances))
    (root / "classes.json").write_text(json.dumps({"cat": "281-285", "cup": list(CUPS), "hat": []}))
    return root


@pytest.fixture(scope="module")
def outputs(dataset):
    """The same images by groups and by the best class."""
    for several in ("group", "best"):
        config = ExplainConfig(
            input=str(dataset / "images"),
            output=str(dataset / several),
            annotations=str(dataset / "instances.json"),
            class_map=str(dataset / "classes.json"),
            several_classes=several,
            num_scales=1,
            overlays=0,
        )
        explain.run(prepare(config))
    return dataset


def test_rows_say_what_they_mean(outputs, lite0):
    rows = {row["image_id"]: row for row in pq.read_table(outputs / "group" / "maps").to_pylist()}
    assert rows.keys() == BOXES.keys()
    for name, label, classes in (("cat.png", "cat", CATS), ("cup.png", "cup", CUPS)):
        row = rows[name]
        assert (row["target_name"], tuple(row["target_classes"])) == (label, classes)
        assert row["target"] == stored_target(classes) < 0
        assert 0 <= row["predicted"] < 1000
    pixels = np.array(Image.open(outputs / "images" / "cat.png").convert("RGB"))
    sess = SESS(lite0, num_scales=1, device="cpu")
    [[found]] = sess.explain([pixels], [[{"cat": CATS}]])
    assert rows["cat.png"]["score"] == pytest.approx(found.score, abs=1e-6)
    image, _ = at_input_size(pixels, found.saliency, sess.model)
    probabilities = sess.model.logits(image[None]).softmax(1)[0]
    assert found.score == pytest.approx(float(probabilities[list(CATS)].sum()), abs=1e-5)
    [stored, _] = sorted(sess_ray.open_run(str(outputs / "group")), key=lambda one: one.image_id)
    assert stored.target_classes == CATS
    assert np.abs(stored.saliency - found.saliency).max() < 1 / 255
    for record in ("started.json", "run.json"):
        groups = json.loads((outputs / "group" / record).read_text())["groups"]
        assert groups == {"cat": list(CATS), "cup": list(CUPS)}
    assert json.loads((outputs / "best" / "run.json").read_text())["groups"] == {}
    best = pq.read_table(outputs / "best" / "maps").to_pylist()
    assert {row["target_classes"][0] for row in best} == {row["target"] for row in best} <= {*CATS, *CUPS}


def test_an_evaluation_asks_for_the_groups_probability(outputs, lite0):
    evaluation = prepare_evaluation(
        EvaluateConfig(
            run=(f"group={outputs / 'group'}", f"best={outputs / 'best'}"),
            output=str(outputs / "evaluation"),
            annotations=str(outputs / "instances.json"),
            class_map=str(outputs / "classes.json"),
            metrics="deletion_rise,pointing_game,average_drop",
        )
    )
    outcome = evaluate.run(evaluation)
    assert {kind for _, kind in outcome.problems} == {"unknown label"}  # of the hat
    model = lite0.prepared(torch.device("cpu"), "fp32").with_groups({"cat": CATS, "cup": CUPS})
    for run, (first, second) in (("group", (1000, 1001)), ("best", (None, None))):
        columns, chunks = results_of(evaluation.store, str(outputs / run))
        rows = {row["image_id"]: row for chunk in chunks(columns) for row in chunk.to_pylist()}
        assert {row["label"] for row in rows.values()} == {"cat", "cup"}
        for stored in sess_ray.open_run(str(outputs / run)):
            target = {"cat.png": first, "cup.png": second}[stored.image_id] or stored.target
            pixels, saliency = at_input_size(stored.image(), stored.saliency, model)
            value = Deletion().ask(model, pixels, saliency, target, key="one")
            assert rows[stored.image_id]["deletion_rise"] == pytest.approx(value, abs=1e-5)


def test_the_job_goes_on_with_the_same_groups_only(outputs):
    config = ExplainConfig(
        input=str(outputs / "images"),
        output=str(outputs / "group"),
        annotations=str(outputs / "instances.json"),
        class_map=str(outputs / "classes.json"),
        num_scales=1,
        overlays=0,
    )
    assert prepare(config).tasks.num_rows == 0
