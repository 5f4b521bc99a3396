"""What flags say of a model: it is checked before the start, written down, and part of what another run compares."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from sess_ray import SessError
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.explain.record import Summary, record
from tests import nets

SAID = {"activation": "sigmoid", "input_size": 48, "mean": "0.4,0.5,0.6", "std": "0.2"}


def model():
    return nets.Small()


@pytest.fixture
def settings(tmp_path):
    Image.new("RGB", (90, 70), "red").save(tmp_path / "x.png")
    return {
        "input": str(tmp_path / "x.png"),
        "output": str(tmp_path / "out"),
        "model": f"{__name__}:model",
        "layer": "third",
        "input_size": 32,
    }


def test_they_are_heard_and_written_down(settings):
    job = prepare(ExplainConfig(**{**settings, **SAID}))
    found = job.model
    assert (found.activation, found.input_size) == ("sigmoid", 48)
    assert (found.mean, found.std) == ((0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    told = record(job, Summary(), datetime.now(UTC))
    assert told["model"]["activation"] == "sigmoid"
    assert {name: told["config"][name] for name in SAID} == SAID


@pytest.mark.parametrize("name", SAID)
def test_another_run_goes_on_only_with_the_same(name, settings):
    prepare(ExplainConfig(**settings)).start()
    prepare(ExplainConfig(**settings))
    with pytest.raises(SessError, match=f"is of a run with other settings .{name} was "):
        prepare(ExplainConfig(**{**settings, name: SAID[name]}))
    started = json.loads(Path(settings["output"], "started.json").read_text())
    assert started["settings"]["activation"] == "auto"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": "grey"}, "--mean grey: use three numbers, such as 0.485,0.456,0.406, or one"),
        ({"mean": "124,116,104"}, "mean 124, 116, 104: give three numbers, for R, G and B in 0..1, or one for all"),
        ({"std": "0"}, "std 0, 0, 0: give three numbers"),
        ({"input_size": 0}, "--input-size 0: use 1 pixel or more"),
        ({"input_size": "0x48"}, "input_size is 0 x 48: use 1 pixel or more"),
        (
            {"input_size": "large"},
            "--input-size large: use the side of the model's input in pixels, such as 224, or HEIGHTxWIDTH",
        ),
        ({"input_size": 224, "layer": "none"}, "unknown layer 'none'"),
        ({"activation": "none"}, "takes what .*:model gives as probabilities"),
        ({"targets": "p>2"}, "use a probability from 0 to below 1"),
    ],
)
def test_what_is_wrong_is_one_line(given, message, settings):
    with pytest.raises(SessError, match=message) as raised:
        prepare(ExplainConfig(**{**settings, **given}))
    assert "\n" not in str(raised.value)


def test_targets_above_a_threshold_are_left_to_the_model(settings):
    [task] = prepare(ExplainConfig(**settings, targets="p>0.25")).tasks.to_pylist()
    assert (task["top"], task["targets"]) == ("p>0.25", None)


def test_an_evaluation_wants_the_model_that_they_are_of():
    with pytest.raises(SessError, match="are of --model: give it, too"):
        EvaluateConfig(run=("a=out",), activation="sigmoid")


@pytest.mark.parametrize("side", ["48", "48x48", " 48 X 48 "])
def test_a_side_may_be_given_twice(side, settings):
    assert prepare(ExplainConfig(**{**settings, "input_size": side})).model.input_size == 48


def test_height_and_width_may_differ(settings):
    settings["input_size"] = "48x32"
    job = prepare(ExplainConfig(**settings))
    assert job.model.input_size == (48, 32)
    told = json.loads(json.dumps(record(job, Summary(), datetime.now(UTC))))
    assert (told["model"]["input_size"], told["config"]["input_size"]) == ([48, 32], "48x32")
    job.start()
    prepare(ExplainConfig(**settings))
    with pytest.raises(SessError, match=r"other settings .input_size was '48x32' and is '32x48'"):
        prepare(ExplainConfig(**{**settings, "input_size": "32x48"}))
