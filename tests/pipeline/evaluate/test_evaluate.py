"""The evaluation job in one Ray session: runs of the explain job and annotations in, tables out."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sess_ray import SessError
from sess_ray.access import Access
from sess_ray.cli import command
from sess_ray.cli import evaluate as evaluate_dataset
from sess_ray.io.annotations import Annotation, Object
from sess_ray.io.maps import decode_map
from sess_ray.metrics.localization import EnergyPointingGame, PointingGame, boxes_region
from sess_ray.metrics.perturbation import AverageDrop, Deletion, Insertion, at_input_size
from sess_ray.metrics.thresholds import MaxBoxAccV2, PooledPxAP, PxAP
from sess_ray.pipeline.evaluate import job as evaluate
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.facts import Unmeasured, facts_of
from sess_ray.pipeline.evaluate.judging import READ, EvaluateActor, read_maps
from sess_ray.pipeline.evaluate.prepare import prepare as prepare_evaluation
from sess_ray.pipeline.evaluate.results import results_of
from sess_ray.pipeline.evaluate.verdict import differences, verdict
from sess_ray.pipeline.explain import job as explain
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare

pytestmark = pytest.mark.usefixtures("ray_session")

TABBY, ESPRESSO, MISSILE = 281, 967, 657
BOXES = {
    "cat.png": [TABBY, [40, 20, 250, 230]],
    "cup.png": [ESPRESSO, [100.5, 40, 290, 210]],
    "rocket.png": [MISSILE, [140, 30, 180, 200]],
    "far.png": [TABBY, [400, 400, 500, 500]],
    "other size.png": [TABBY, [0, 0, 50, 50]],
}
MEASURED = {"gone.png": [0, 0, 200, 200], **{name: BOXES[name][1] for name in ("cat.png", "cup.png", "rocket.png")}}


@pytest.fixture(scope="module")
def images(tmp_path_factory, photographs):
    root = tmp_path_factory.mktemp("images")
    sources = {"cup.png": "coffee.png", "rocket.png": "rocket.jpg"}
    for name in (*BOXES, "alone.png", "gone.png"):
        source = photographs[sources.get(name, "chelsea.png")]
        Image.fromarray(source).resize((320, 240)).save(root / name)
    return root


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """Two runs: with and without SESS; then an image disappears."""
    root = tmp_path_factory.mktemp("runs")
    manifest = root / "images.csv"
    classes = {name: BOXES.get(name, [TABBY])[0] for name in (*BOXES, "alone.png", "gone.png")}
    lines = [f"{images / name},{name},{label}" for name, label in classes.items()]
    manifest.write_text("uri,id,label\n" + "\n".join(lines))
    for name, scales in (("base", 0), ("sess", 2)):
        config = ExplainConfig(
            input=str(manifest), output=str(root / name), targets="label", num_scales=scales, overlays=0, actors="1"
        )
        assert explain.run(prepare(config)).maps == 7
    (images / "gone.png").unlink()
    return {name: str(root / name) for name in ("base", "sess")}


def evaluated(runs, output, **settings):
    config = EvaluateConfig(run=tuple(f"{name}={url}" for name, url in runs.items()), output=str(output), **settings)
    evaluation = prepare_evaluation(config)
    return evaluation, evaluate.run(evaluation)


@pytest.fixture(scope="module")
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


def table(output, folder):
    return [row for path in sorted(Path(output, folder).rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_rows_are_what_the_metrics_say_of_each_map_alone(whole, runs, images):
    output, evaluation, _ = whole
    model = evaluation.model.prepared(torch.device("cpu"), "fp32")
    found = {(row["run"], row["image_id"]): row for row in table(output, "results")}
    assert len(found) == 14
    for run in runs:
        for stored in table(runs[run], "maps"):
            row = found[run, stored["image_id"]]
            saliency = decode_map(stored["saliency"]["bytes"])
            if box := MEASURED.get(stored["image_id"]):
                region = boxes_region([box], 240, 320)
                peak = stored["peak_x"], stored["peak_y"]
                assert row["pointing_game"] == PointingGame().measure(saliency, region, peak)
                assert row["energy_pointing_game"] == pytest.approx(EnergyPointingGame().measure(saliency, region))
                assert row["pxap"] == pytest.approx(PxAP().measure(saliency, region))
                assert row["pxap_pooled"] == PooledPxAP().measure(saliency, region).tolist()
                assert row["area"] == region.mean()
                assert row["label"] == str(stored["target"])
                assert len(row["max_box_acc"]) == 20
                assert row["max_box_acc_v2"] == MaxBoxAccV2().measure(saliency, [box]).tolist()
            else:
                assert row["energy_pointing_game"] is None
            if stored["image_id"] == "gone.png":
                assert row["insertion_groupcam"] is None
            if stored["image_id"] not in ("cat.png", "cup.png"):
                continue
            pixels = np.asarray(Image.open(images / stored["image_id"]))
            given = at_input_size(pixels, saliency, model)
            expected = {
                "insertion_groupcam": Insertion("groupcam"),
                "deletion_groupcam": Deletion("groupcam"),
                "average_drop": AverageDrop(),
            }
            for name, metric in expected.items():
                assert row[name] == pytest.approx(metric.ask(model, *given, stored["target"], key=""), abs=1e-5)
            assert row["overall_groupcam"] == row["insertion_groupcam"] - row["deletion_groupcam"]


def test_the_model_is_asked_what_the_definitions_need_and_no_more(whole):
    _, _, outcome = whole
    steps = 28
    questions = 2 * (steps + 1) + 2  # insertion and deletion; drop and increase share their two
    assert outcome.forwards == 2 * 6 * questions


def test_what_cannot_be_measured_is_named(whole):
    output, _, outcome = whole
    problems = {(row["run"], row["image_id"], row["problem"]) for row in table(output, "problems")}
    of_runs = {
        (run, image, kind)
        for run in ("base", "sess")
        for image, kind in (
            ("far.png", "nothing there"),
            ("other size.png", "another size"),
            ("alone.png", "no annotation"),
            ("gone.png", "no image"),
            ("cup.png", "no map"),
        )
    }
    of_annotations = {("", "cat.png", "unknown label"), ("", "broken.png", "annotation")}
    assert problems == of_runs | of_annotations
    assert outcome.problems == Counter((run, kind) for run, _, kind in problems)
    text = (output / "summary.md").read_text()
    for kind in ("nothing there", "another size", "no annotation", "no image", "no map", "unknown label"):
        assert f"| {kind} " in text
    assert "Sharpening alone raises energy_pointing_game" in text


def test_the_report_shows_what_was_found(whole):
    output, _, outcome = whole
    page = (output / "report.html").read_text()
    said = verdict("sess", "base", differences(outcome.lines))
    for text in (*map(escape, said), "num_scales", "nothing there", "Most different"):
        assert text in page
    # base, sess and the image, of each image that a run has measured and that is still there.
    assert page.count('src="data:image/jpeg;base64,') >= 9
    assert "The image cannot be read." in page  # gone.png
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)


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


def test_a_class_of_difficult_objects_alone_is_left_out():
    row = {"height": 40, "width": 50, "target": 3, "peak_x": 1, "peak_y": 1}
    easy, hard = Object("cat", (0, 0, 9, 9)), Object("cat", (20, 20, 30, 30), difficult=True)
    classes = {"cat": (3,)}
    with pytest.raises(Unmeasured, match="all objects annotated as 'cat' are marked difficult"):
        facts_of(row, Annotation("a.jpg", [hard, hard]), classes, "boxes")
    _, facts = facts_of(row, Annotation("a.jpg", [hard, easy]), classes, "boxes")
    assert facts.region.sum() == 81 + 100  # beside others, difficult ones count: as in the benchmark


def test_the_summary_is_the_mean_of_the_rows(whole):
    output, _, _ = whole
    record = json.loads((output / "summary.json").read_text())
    rows = table(output, "results")
    means = {(line["run"], line["base"], line["metric"]): line for line in record["summary"] if line["group"] == "all"}
    for metric in ("energy_pointing_game", "insertion_groupcam", "average_drop"):
        values = {run: [row[metric] for row in rows if row["run"] == run] for run in ("base", "sess")}
        values = {run: [value for value in own if value is not None] for run, own in values.items()}
        for run, own in values.items():
            line = means[run, "", metric]
            assert line["n"] == len(own)
            assert line["mean"] == pytest.approx(np.mean(own))
            assert line["low"] <= line["mean"] <= line["high"]
        difference = means["sess", "base", metric]
        assert difference["mean"] == pytest.approx(np.mean(values["sess"]) - np.mean(values["base"]))
    csv = (output / "summary.csv").read_text().splitlines()
    assert csv[0] == "run,base,group,value,metric,n,mean,low,high"
    assert len(csv) == 1 + len(record["summary"])


def test_the_command_line_without_annotations_and_from_a_folder_of_images(runs, images, tmp_path, capsys):
    given = f"--run sess={runs['sess']} --images {images} --metrics average_drop --limit 3 --output {tmp_path}/out"
    assert command.run(evaluate_dataset.app, given.split()) == 0
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (record["maps"], record["forwards"]) == (3, 6)
    assert record["problems"] == [{"run": "sess", "problem": "no image", "rows": 1}]
    assert {line["metric"] for line in record["summary"]} == {"average_drop"}
    assert (tmp_path / "out" / "summary.md").read_text() in capsys.readouterr().out
    assert command.run(evaluate_dataset.app, given.split()) == 2
    assert "has an evaluation already" in capsys.readouterr().err
    assert command.run(evaluate_dataset.app, []) == 2
    assert "nothing to evaluate: give --run NAME=OUTPUT" in capsys.readouterr().err


def test_images_are_read_only_where_the_model_is_asked(whole, runs):
    _, evaluation, _ = whole
    rows = [
        row
        for block in evaluation.blocks
        for found in read_maps(block, Access(), runs, pixels=False, max_pixels=10**6)
        for row in found.to_pylist()
    ]
    assert Counter(row["image_id"] for row in rows)["gone.png"] == len(runs)
    assert {(row["pixels"], row["problem"]) for row in rows} == {(None, None)}


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
    with pytest.raises(SessError, match="unknown run in --compare 'best': choose one of: base, sess"):
        evaluated(runs, tmp_path / "out", compare=("best=base",))
    with pytest.raises(SessError, match="--run base: use NAME=OUTPUT"):
        EvaluateConfig(run=("base",))
