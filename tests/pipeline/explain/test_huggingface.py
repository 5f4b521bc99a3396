"""Models of Hugging Face transformers through the job, as commands name them."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from sess_ray import SessError
from sess_ray.pipeline.explain.code import MAKERS, PACKAGE, reached
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from tests.models import huggingface_zoo as zoo

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # to import transformers alone takes seconds
CLASSIFIERS = ("vit", "swin", "dinov2_with_registers")
ENCODERS = ("clip", "siglip")
PROMPTS = "a dog; two cat, sleeping; a photo of a dog"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("transformers")
    (root / "images").mkdir()
    zoo.picture(48).save(root / "images" / "x.png")
    for kind in CLASSIFIERS:
        zoo.saved(kind, root / kind)
    for kind in ENCODERS:
        zoo.saved_encoders(kind, root / kind)
    return root


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("nowhere", {}, "no such folder"),
        ("images", {}, "the folder has no config.json"),
        ("clip", {}, 'tells prompts apart: give --prompts FILE, or --targets "a dog; a cat"'),
        ("clip", {"targets": "a dog;"}, "compares prompts, and 'a dog' is the only one"),
        ("clip", {"prompts": "no.txt"}, "no such prompts: no.txt"),
        ("vit", {"targets": "gull; crab"}, "has classes of its own: leave prompts out, and separate targets by commas"),
        ("vit", {"layer": "classifier"}, "has no grid of positions"),
    ],
)
def test_what_is_wrong_is_said_before_ray_starts(kind, settings, message, folders, tmp_path):
    config = ExplainConfig(
        input=str(folders / "images"), output=str(tmp_path / "out"), model=f"hf:{folders / kind}", **settings
    )
    with zoo.no_hub(), pytest.raises(SessError, match=re.escape(message)) as raised:
        prepare(config)
    assert "\n" not in str(raised.value)


def test_targets_of_prompts_and_the_version_that_reads_them(folders, tmp_path):
    config = ExplainConfig(
        input=str(folders / "images"), output=str(tmp_path / "out"), model=f"hf:{folders / 'clip'}", targets=PROMPTS
    )
    with zoo.no_hub():
        job = prepare(config)
    assert job.model.classes == tuple(PROMPTS.split("; "))
    assert job.tasks["targets"].to_pylist() == [[[0], [1], [2]]]
    assert job.made_with["transformers"] == version("transformers")
    assert not [name for name in job.made_with if name.startswith("module")]


def test_what_reads_them_counts_as_code_of_a_map():
    names = {file.relative_to(PACKAGE).as_posix() for file in reached(MAKERS)}
    files = ("huggingface", "zero_shot", "processors", "timm_hub", "source", "layers")
    assert {f"models/{name}.py" for name in files} <= names
