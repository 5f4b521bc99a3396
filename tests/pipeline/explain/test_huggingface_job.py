"""Tiny models of Hugging Face transformers and of open_clip through the whole job."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from ray import cloudpickle

from sess_ray import SESS
from sess_ray.pipeline.explain import actor
from tests.models import huggingface_zoo as zoo
from tests.pipeline.explain.inside import stay_here
from tests.pipeline.explain.jobs import explain, rows

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow
PROMPTS = ["a dog", "two cat, sleeping", "a photo of a dog"]


@pytest.fixture
def job(tmp_path):
    """Return what explains one image of 32 x 32 pixels by the model in the folder `model`, and gives rows of maps."""
    (tmp_path / "images").mkdir()
    zoo.picture(32).save(tmp_path / "images" / "x.png")

    def run(model="hf", **settings):
        with zoo.no_hub():
            summary = explain(
                input=f"{tmp_path}/images",
                output=f"{tmp_path}/out",
                model=f"{model}:{tmp_path}/model",
                num_scales=1,
                overlays=0,
                **settings,
            )
        assert (summary.images, summary.errors) == (1, 0)
        found = rows(tmp_path / "out")
        assert summary.maps == len(found)
        assert all(row["num_patches"] == 1 for row in found)
        return found

    return run


@pytest.fixture
def sent(monkeypatch):
    """Let the job's stages run in this process, with the model that another would get."""
    stay_here(monkeypatch)
    monkeypatch.setattr(actor.ray, "get", lambda model: cloudpickle.loads(cloudpickle.dumps(model)))


def known(found, names, probabilities):
    """Compare names, and scores with the library's own."""
    assert [row["target_name"] for row in found] == names
    np.testing.assert_allclose([row["score"] for row in found], probabilities, atol=1e-5)


def of_labels(network, processor, names):
    probabilities = zoo.by_hand(network, processor, zoo.picture(32)).softmax(1)[0]
    return [probabilities[zoo.NAMES.index(name)].item() for name in names]


def of_prompts(kind, network, tokenizer, processor):
    padding = {"padding": "max_length", "max_length": 8} if kind == "siglip" else {"padding": True}
    words, pixels = (
        tokenizer(PROMPTS, return_tensors="pt", **padding),
        processor(images=zoo.picture(32), return_tensors="pt"),
    )
    with torch.no_grad():
        logits = network(**words, **pixels).logits_per_image[0]
    return (logits.sigmoid() if kind == "siglip" else logits.softmax(0)).tolist()


@pytest.mark.usefixtures("ray_session")
def test_a_folder_that_save_pretrained_wrote(job, tmp_path):
    made = zoo.saved("vit", tmp_path / "model")
    known(job(targets="gull, crab"), ["gull", "crab"], of_labels(*made, ["gull", "crab"]))
    assert "transformers" in json.loads((tmp_path / "out" / "started.json").read_text())["made_with"]


@pytest.mark.usefixtures("ray_session")
def test_clip_with_a_file_of_prompts(job, tmp_path):
    made = zoo.saved_encoders("clip", tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    found = job(targets="top3", prompts=str(tmp_path / "prompts.txt"))
    ranked = sorted(zip(PROMPTS, of_prompts("clip", *made), strict=True), key=lambda one: -one[1])
    known(found, *(list(part) for part in zip(*ranked, strict=True)))
    assert found[0]["predicted_score"] == found[0]["score"]


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("kind", ["swin", "dinov2_with_registers"])
def test_the_job_has_the_maps_that_python_has(kind, job, tmp_path):
    made = zoo.saved(kind, tmp_path / "model")
    found = job(targets="crab,walrus")
    known(found, ["crab", "walrus"], of_labels(*made, ["crab", "walrus"]))
    [images] = SESS(f"hf:{tmp_path}/model", num_scales=1, device="cpu").explain([zoo.picture(32)], [["crab", "walrus"]])
    for row, ours in zip(found, images, strict=True):
        stored = np.asarray(Image.open(io.BytesIO(row["saliency"]["bytes"])))
        np.testing.assert_allclose(stored / 255, ours.saliency, atol=0.51 / 255)
        assert stored.max() > stored.min()


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_prompts_as_targets(kind, job, tmp_path):
    made = zoo.saved_encoders(kind, tmp_path / "model")
    known(job(targets="; ".join(PROMPTS)), PROMPTS, of_prompts(kind, *made))


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_open_clip(kind, job, tmp_path):
    pytest.importorskip("open_clip")
    network, tokenizer = zoo.saved_open_clip(kind, tmp_path / "model")
    found = job("open_clip:local-dir", targets="; ".join(PROMPTS))
    with torch.no_grad():
        pixels = zoo.normalised(zoo.picture(32), (0.4, 0.5, 0.6), (0.5, 0.5, 0.5))
        logits = network.get_logits(pixels, tokenizer(PROMPTS))[0][0]
    known(found, PROMPTS, (logits.sigmoid() if kind == "siglip" else logits.softmax(0)).tolist())
