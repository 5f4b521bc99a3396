"""Runs of the explain job, annotations, and an evaluation of them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from sess_ray.pipeline.explain import job as explain
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from tests.pipeline.evaluate.jobs import BOXES, MEASURED, MISSILE, SIDE, TABBY, evaluated


@pytest.fixture(scope="package")
def images(tmp_path_factory, photographs):
    root = tmp_path_factory.mktemp("images")
    sources = {"cup.png": "coffee.png", "rocket.png": "rocket.jpg"}
    for name in (*BOXES, "alone.png", "gone.png"):
        source = photographs[sources.get(name, "chelsea.png")]
        Image.fromarray(source).resize((320, 240)).save(root / name)
    return root


@pytest.fixture(scope="package")
def annotations(tmp_path_factory):
    path = tmp_path_factory.mktemp("annotations") / "boxes.jsonl"
    rows = [
        {"image_id": name, "width": 320, "height": 240, "objects": [{"label": str(label), "box": box}]}
        for name, (label, box) in BOXES.items()
    ]
    rows[-1]["width"] = 500
    rows[0]["objects"].append({"label": "unicorn", "box": [0, 0, 9, 9]})
    rows[1]["objects"].append({"label": str(MISSILE), "box": [0, 0, 60, 60]})  # nobody explains it
    rows.append({"image_id": "gone.png", "objects": [{"label": str(TABBY), "box": MEASURED["gone.png"]}]})
    rows.append({"image_id": "broken.png", "objects": [{"label": "tabby"}]})
    # Nobody has asked about this one.
    rows.append(
        {"image_id": "stranger.png", "objects": [{"label": name, "box": [0, 0, 9, 9]} for name in ("7", "orc")]}
    )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="package")
def runs(images, tmp_path_factory):
    """Two runs: with and without SESS; then an image disappears."""
    root = tmp_path_factory.mktemp("runs")
    manifest = root / "images.csv"
    classes = {name: BOXES.get(name, [TABBY])[0] for name in (*BOXES, "alone.png", "gone.png")}
    lines = [f"{images / name},{name},{label}" for name, label in classes.items()]
    manifest.write_text("uri,id,label\n" + "\n".join(lines))
    for name, scales in (("base", 0), ("sess", 1)):
        config = ExplainConfig(
            input=str(manifest),
            output=str(root / name),
            targets="label",
            num_scales=scales,
            overlays=0,
            actors="1",
            input_size=SIDE,
        )
        assert explain.run(prepare(config)).maps == 7
    (images / "gone.png").unlink()
    return {name: str(root / name) for name in ("base", "sess")}


@pytest.fixture(scope="package")
def whole(runs, annotations, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation")
    evaluation, outcome = evaluated(
        runs,
        output,
        annotations=str(annotations),
        metrics="pxap,pointing_game,energy_pointing_game,max_box_acc,overall_groupcam,average",
        batch_size=5,
    )
    return output, evaluation, outcome
