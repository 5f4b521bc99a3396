"""Evaluations of bad maps, of difficult objects, of what has no annotation, and those that are refused."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sess_ray import SessError
from sess_ray.boxes import boxes_region
from sess_ray.io.annotations import Annotation, Object
from sess_ray.io.maps import decode_map
from sess_ray.metrics.localization import PointingGame
from sess_ray.pipeline.evaluate import job as evaluate
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.facts import Unmeasured, facts_of
from sess_ray.pipeline.evaluate.judging import READ, EvaluateActor
from sess_ray.pipeline.evaluate.prepare import prepare as prepare_evaluation
from sess_ray.pipeline.evaluate.results import results_of
from tests.pipeline.evaluate.jobs import MEASURED, evaluated, table

pytestmark = pytest.mark.usefixtures("ray_session")


def test_maps_of_pixel_gradients_are_blurred_before_they_point(runs, annotations, tmp_path):
    """As in the benchmark: the maximum of the blurred map counts, not the one that is stored."""
    gradient = tmp_path / "gradient"
    shutil.copytree(runs["base"], gradient)
    for path in (gradient / "maps").iterdir():
        stored = pq.read_table(path)
        rows = [{**row, "method": "guided_backprop", "peak_x": 0, "peak_y": 0} for row in stored.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, stored.schema), path)
    both = {"gradient": str(gradient), "cam": runs["base"]}
    given = {"annotations": str(annotations), "metrics": "pointing_game"}
    evaluation, _ = evaluated(both, tmp_path / "out", **given)
    assert evaluation.smooth == {"gradient": 0.02, "cam": 0.0}
    found = {row["image_id"]: row for row in table(tmp_path / "out", "results/gradient")}
    maps = {row["image_id"]: decode_map(row["saliency"]["bytes"]) for row in table(gradient, "maps")}
    for name, box in MEASURED.items():
        expected = PointingGame(smooth=0.02).measure(maps[name], boxes_region([box], 240, 320))
        assert found[name]["pointing_game"] == expected
    assert any(found[name]["pointing_game"] for name in MEASURED)  # not what the corner would say
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["pointing_smooth"] == evaluation.smooth
    assert "maps of gradient are blurred for it: sigma 0.02" in (tmp_path / "out" / "summary.md").read_text()
    told = EvaluateConfig(run=(f"gradient={gradient}",), output=str(tmp_path / "sharp"), **given, pointing_smooth=0.0)
    assert prepare_evaluation(told).smooth == {"gradient": 0.0}
    given["metrics"] = "pointing_game_difficult"
    given |= {"region": "boxes", "pointing_smooth": 0.05}
    blurred = prepare_evaluation(EvaluateConfig(run=(f"cam={runs['base']}",), output=told.output, **given))
    assert evaluate.read_as(blurred).splitlines()[1:] == [
        "pointing_game_difficult is the mean over classes.",
        "By --pointing-smooth, maps of cam are blurred for it: sigma 0.05 of the longer side.",
        "By --region, the pointing game and PxAP aim at boxes, also of objects that have segments.",
    ]


def test_a_class_of_difficult_objects_alone_is_left_out():
    row = {"height": 40, "width": 50, "target": 3, "peak_x": 1, "peak_y": 1}
    easy, hard = Object("cat", (0, 0, 9, 9)), Object("cat", (20, 20, 30, 30), difficult=True)
    classes = {"cat": (3,)}
    with pytest.raises(Unmeasured, match="all objects annotated as 'cat' are marked difficult"):
        facts_of(row, Annotation("a.jpg", [hard, hard]), classes, "boxes")
    _, facts = facts_of(row, Annotation("a.jpg", [hard, easy]), classes, "boxes")
    assert facts.region.sum() == 81 + 100  # beside others, difficult ones count: as in the benchmark


def test_one_bad_map_costs_only_itself(runs, lite0, ray_session):
    stored = table(runs["sess"], "maps")
    rows = [{**row, "run": "sess", "pixels": None} for row in stored[:4]]
    rows[1]["saliency"] = {"bytes": b"no PNG", "path": None}
    rows[2]["height"] += 1
    png = io.BytesIO()
    Image.new("L", (rows[3]["width"], rows[3]["height"])).save(png, "PNG")
    rows[3]["saliency"] = {"bytes": png.getvalue(), "path": None}
    rows[0]["pixels"] = np.full((240, 320, 3), 90, np.uint8).tobytes()
    actor = EvaluateActor(ray_session.put(lite0), None, ["average_drop"], "boxes", "fp32", 3)
    [judged] = actor(pa.Table.from_pylist(rows, READ))
    found = judged.to_pylist()
    names = [row["image_id"] for row in rows]
    assert [(row["image_id"], row["problem"]) for row in found] == [
        (names[0], None),
        (names[3], None),
        (names[1], "unreadable map"),
        (names[2], "unreadable map"),
        (names[3], "empty map"),
    ]
    assert found[0]["average_drop"] is not None


def test_a_run_without_a_readable_map_is_counted(runs, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(runs["base"], broken)
    for path in (broken / "maps").iterdir():
        stored = pq.read_table(path)
        rows = [{**row, "saliency": {"bytes": b"no PNG", "path": None}} for row in stored.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, stored.schema), path)
    both = {"base": runs["base"], "broken": str(broken)}
    evaluation, outcome = evaluated(both, tmp_path / "out", metrics="average_increase", compare=("broken=base",))
    assert outcome.problems["broken", "unreadable map"] == 7
    assert {(line.run, line.base): line.summary.n for line in outcome.lines if line.group == "all"} == {
        ("base", ""): 6,
        ("broken", "base"): 0,
    }
    assert "broken" in evaluate.as_text(evaluation, outcome)
    with pytest.raises(SessError, match="could measure no map of"):
        results_of(evaluation.store, str(broken))


def test_what_an_interrupted_evaluation_left_is_not_mixed_with_another(runs, tmp_path):
    left = tmp_path / "results" / "base"
    left.mkdir(parents=True)
    (left / "half.parquet").write_bytes(b"")
    with pytest.raises(SessError, match="has an evaluation already"):
        evaluated(runs, tmp_path)


def test_an_evaluation_is_refused_in_one_line(runs, whole, tmp_path):
    output, _, _ = whole
    for settings, message in (
        ({}, "has an evaluation already: add --overwrite"),
        ({"metrics": "beauty"}, "unknown metric 'beauty'"),
        ({"metrics": "pointing_game"}, "metric pointing_game needs --annotations"),
        ({"annotations": "none.json", "overwrite": True}, "no such annotations: none.json"),
    ):
        with pytest.raises(SessError, match=message):
            evaluated(runs, output, **settings)
    with pytest.raises(SessError, match=r"run gone: .* has no maps"):
        evaluated({"gone": str(tmp_path)}, tmp_path / "out")
    with pytest.raises(SessError, match="is run base itself"):
        evaluated(runs, runs["base"], overwrite=True)
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps({"image_id": "cat.png", "objects": [{"label": "unicorn", "box": [0, 0, 9, 9]}]}))
    with pytest.raises(SessError, match=r"knows no label of .*: give a --class-map"):
        evaluated(runs, tmp_path / "out", annotations=str(labels))
    labels.write_text(json.dumps({"image_id": "a/dog.png", "objects": [{"label": 207, "box": [0, 0, 9, 9]}]}))
    with pytest.raises(SessError, match=r"none of the images of --run is annotated there; .* like 'a/dog\.png'"):
        evaluated(runs, tmp_path / "out", annotations=str(labels))
    with pytest.raises(SessError, match="unknown run in --compare 'best': choose one of: base, sess"):
        evaluated(runs, tmp_path / "out", compare=("best=base",))
    with pytest.raises(SessError, match="--run base: use NAME=OUTPUT"):
        EvaluateConfig(run=("base",))
