"""A model whose input is not square through the job's stages, from its flag to the stored maps and what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sess_ray import SESS, SessError, load_model, open_run
from sess_ray.cli import command, gallery
from sess_ray.cli import explain as command_line
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from tests import nets
from tests.pipeline.explain.inside import stay_here
from tests.pipeline.explain.jobs import explain, picture

SIZES = [(90, 70), (40, 100)]


def model():
    return nets.Small(scale=15)


@pytest.fixture
def given(tmp_path):
    (tmp_path / "images").mkdir()
    for number, size in enumerate(SIZES):
        (tmp_path / "images" / f"{number}.png").write_bytes(picture(number, size))
    own = {"model": f"{__name__}:model", "layer": "third", "input_size": "48x32"}
    return {"input": f"{tmp_path}/images", "output": f"{tmp_path}/out", "targets": "2", **own}


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_maps_are_those_of_the_library(method, given, monkeypatch):
    stay_here(monkeypatch)
    summary = explain(**given, method=method, num_scales=3, overlays=1)
    assert (summary.images, summary.errors) == (2, 0)
    stored = open_run(given["output"])
    told = json.loads(Path(given["output"], "run.json").read_text())
    assert told["model"]["input_size"] == [48, 32]
    sess = SESS(load_model(model(), layer="third", input_size=(48, 32)), method, num_scales=3, device="cpu")
    for row in stored:
        [[found]] = sess.explain([row.image()], [[2]])
        assert np.abs(row.saliency - found.saliency).max() < 0.5 / 255 + 1e-5
        assert (row.num_patches, row.num_kept) == (found.num_patches, found.num_kept)
        assert row.score == pytest.approx(found.score, abs=1e-6)
    assert prepare(ExplainConfig(**given, method=method, num_scales=3)).tasks.num_rows == 0


@pytest.mark.parametrize(("first", "second"), [(None, 16), (16, None)])
def test_a_run_with_another_step_is_refused(first, second, given):
    """The step that is left to the model is None: the height of a window down, and its width across."""
    prepare(ExplainConfig(**given, num_scales=2, step_size=first)).start()
    assert prepare(ExplainConfig(**given, num_scales=2, step_size=first)).left == 2
    told = {None: "not given", 16: "16"}
    with pytest.raises(SessError, match=f"step_size was {told[first]} and is {told[second]}"):
        prepare(ExplainConfig(**given, num_scales=2, step_size=second))


@pytest.mark.slow
def test_the_dry_run_measures_it(given, capsys):
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    assert command.run(command_line.app, [*settings, "--dry-run", "--num-scales", "1"]) == 0
    assert "layer third, input 48 x 32 px, 5 classes" in capsys.readouterr().out


def test_the_page_of_windows_shows_their_shape(given, tmp_path):
    own = {name: given[name] for name in ("model", "layer", "input_size")} | {"target": 2, "num_scales": 2}
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in own.items()]
    page = tmp_path / "page"
    assert command.run(gallery.app, [*settings, "--image", f"{given['input']}/0.png", "--output", str(page)]) == 0
    told = json.loads((page / "data" / "windows.js").read_text().removeprefix("patches.start(").rstrip(");\n"))
    assert told["window"] == {"height": 48, "width": 32}
    for window in told["windows"]:
        x0, y0, x1, y1 = window["box"]
        scale = told["scales"][window["scale"]]
        shape = ((x1 - x0) * scale["width"] / 90, (y1 - y0) * scale["height"] / 70)
        assert shape == pytest.approx((32, 48), abs=0.02)
        assert [Image.open(page / window[name]).size for name in ("crop", "map")] == [(75, 112), (32, 48)]
