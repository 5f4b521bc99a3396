"""The sweep, in the session that the tests share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from sess_ray import SessError
from sess_ray.cli import command, sweep
from sess_ray.io.store import FINISHED, STARTED, Store
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.resume import settings


def run(*arguments):
    return command.run(sweep.app, list(map(str, arguments)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "nothing to sweep: give --sweep SETTING=VALUE,VALUE"),
        (["--sweep", "scales=1,2"], "unknown setting to sweep 'scales'"),
        (["--sweep", "num_scales=1,many"], "--num-scales: 'many' is not a whole number"),
        (["--sweep", "num_scales"], "--sweep num_scales: use key=value"),
        (
            ["--sweep", "method=rise,gradcam", "--method-option", "rice.masks=9"],
            "unknown method of --method-option 'rice': choose one of: gradcam, rise",
        ),
        (["--sweep", "method=rise,gradcam", "--method-option", "masks=9"], "gradcam has no options, so not 'masks'"),
        (["--sweep", "method=rise,gratcam"], "unknown method 'gratcam'"),
        (
            ["--sweep", "num_scales=1,2", "--baseline", "num_scales=0"],
            "unknown value of num_scales in --baseline '0': choose one of: 1, 2",
        ),
        (["--sweep", "num_scales=1,2", "--overlays", 3], "sess-ray sweep has no use for --overlays: leave it out"),
        (["--sweep", "num_scales=1,2", "--baseline", "seed=0"], "unknown setting in --baseline 'seed'"),
        (["--sweep", "num_scales=1,2", "--metrics", "pxapp"], "unknown metric 'pxapp': choose of pxap, pointing_game"),
        (["--sweep", "num_scales=1,2", "--metrics", "pxap"], "metric pxap needs --annotations"),
    ],
)
def test_wrong_usage_is_one_line(given, message, capsys):
    assert run(*given) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1


def test_an_option_is_for_all_methods_or_for_one_of_them():
    common = ExplainConfig(method_option=("rise.masks=9", "own.py:x.samples=2", "std=0.3"))
    found = sweep.points(["method=rise,own.py:x"], common)
    assert [point.config.method_options() for point in found] == [
        {"masks": "9", "std": "0.3"},
        {"samples": "2", "std": "0.3"},
    ]


def test_points_are_compared_with_the_first_values_or_with_what_is_named():
    sweep_ = ["method=cam,gradcam", "num_scales=0,4"]
    found = sweep.points(sweep_, ExplainConfig())
    assert {point.base for point in found} == {"method cam, num_scales 0"}
    for baseline in ("method gradcam, num_scales 4", "num_scales=4,method=gradcam"):
        found = sweep.points(sweep_, ExplainConfig(), baseline)
        assert {point.base for point in found} == {"method gradcam, num_scales 4"}
    found = sweep.points(sweep_, ExplainConfig(), "method=gradcam")
    assert [point.base for point in found] == ["method gradcam, num_scales 0", "method gradcam, num_scales 4"] * 2


def test_only_a_finished_run_with_the_same_settings_and_limit_is_used_again(tmp_path):
    config, store = ExplainConfig(limit=2), Store(str(tmp_path))
    assert sweep.finished(str(tmp_path), config) is None
    store.write_json(STARTED, {"settings": settings(config)})
    assert sweep.finished(str(tmp_path), config) is None
    record = {"config": config.public()}
    store.write_json(FINISHED, record)
    assert sweep.finished(str(tmp_path), config) == record
    assert sweep.finished(str(tmp_path), replace(config, limit=None)) is None
    with pytest.raises(SessError, match=r"other settings \(seed was 0 and is 1\)"):
        sweep.finished(str(tmp_path), replace(config, seed=1))
    for name, value in (("weights", "other.pth"), ("step_size", 112), ("pre_filter_ratio", 0.5)):
        with pytest.raises(SessError, match=rf"other settings \({name} was not given and is .*add --overwrite"):
            sweep.finished(str(tmp_path), replace(config, **{name: value}))


@pytest.mark.usefixtures("ray_session")
def test_a_table_a_plot_and_runs_that_are_used_again(tmp_path, photographs, capsys):
    (tmp_path / "images").mkdir()
    Image.fromarray(photographs["chelsea.png"]).resize((160, 120)).save(tmp_path / "images" / "cat.png")
    given = ["--input", tmp_path / "images", "--output", tmp_path / "sweep", "--metrics", "average_drop", "--actors", 1]
    given += ["--model", "tests.fragile:model"]
    assert run("--sweep", "num_scales=0,1", "--sweep", "smooth=false", *given) == 0
    text = (tmp_path / "sweep" / "sweep.md").read_text()
    for name in ("num_scales 0, smooth false", "num_scales 1, smooth false"):
        assert f"| {name} " in text.partition("## Cost")[0]
        assert f"| {name} " in text.partition("## Cost")[2]
    assert "num_scales 1, smooth false - num_scales 0, smooth false" in text
    for name in ("sweep.png", "cost.png"):
        with Image.open(tmp_path / "sweep" / name) as picture:
            assert picture.size == (400, 400)  # one metric
            assert len(set(picture.convert("L").tobytes())) > 20
    assert "num_scales 1, smooth false" in (tmp_path / "sweep" / "evaluation" / "report.html").read_text()
    capsys.readouterr()
    assert run("--sweep", "num_scales=0,1", "--sweep", "smooth=false", *given) == 0
    told = capsys.readouterr().out
    assert "evaluated before: 2 runs" in told
    assert "explaining" not in told
    assert (tmp_path / "sweep" / "sweep.md").read_text() == text
