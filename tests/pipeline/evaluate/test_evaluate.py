"""The evaluation job in one Ray session: runs of the explain job and annotations in, tables out."""

from __future__ import annotations

import json
import re
from collections import Counter
from html import escape

import numpy as np
import pytest
import torch
from PIL import Image

from sess_ray.access import Access
from sess_ray.boxes import boxes_region
from sess_ray.cli import command
from sess_ray.cli import evaluate as evaluate_dataset
from sess_ray.io.maps import decode_map
from sess_ray.metrics.localization import EnergyPointingGame, PointingGame
from sess_ray.metrics.perturbation import AverageDrop, Deletion, Insertion, at_input_size
from sess_ray.metrics.thresholds import MaxBoxAccV2, PooledPxAP, PxAP
from sess_ray.pipeline.evaluate.judging import read_maps
from sess_ray.pipeline.evaluate.verdict import differences, verdict
from tests.pipeline.evaluate.jobs import MEASURED, table

pytestmark = pytest.mark.usefixtures("ray_session")


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
    steps = 16
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
        for block in evaluation.selection.blocks
        for found in read_maps(block, Access(), runs, pixels=False, max_pixels=10**6)
        for row in found.to_pylist()
    ]
    assert Counter(row["image_id"] for row in rows)["gone.png"] == len(runs)
    assert {(row["pixels"], row["problem"]) for row in rows} == {(None, None)}
