"""Every method with every kind of model: it works, or says in one line why not. The table is in docs/methods.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import sess_ray
from sess_ray import SESS, SessError, demo, methods
from sess_ray.methods import ablation, perturbation
from sess_ray.models import Model
from sess_ray.tables import markdown
from tests.methods.quick import QUICK

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
FEW = {
    **QUICK,
    "groupcam": {"groups": 2},
    "rise": {"masks": 2},
    "xrai": {"steps": 1},
    "sscam": {"samples": 1},
    "iscam": {"samples": 1},
}
FEW |= {"extremal_perturbation": {"steps": 1, "areas": (0.2,)}, "augmented_gradcam": {"samples": 2, "steps": 2}}
SIDE = 64
LARGE = ("tf_efficientnet_lite0", "resnet50", "vgg16", "vit_b_16", "swin_t", "convnext_tiny")
MODELS = ("squeezenet1_1", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE))


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    if request.param == "tf_efficientnet_lite0":
        return demo.efficientnet_lite0()
    if request.param == "vit_b_16":
        return short_transformer()
    return sess_ray.load_model(request.param, "random", input_size=SIDE)  # what works does not depend on it


def short_transformer():
    """ViT-B/16 with 3 of its 12 blocks, which are all alike."""
    module = VisionTransformer(
        image_size=SIDE, patch_size=16, num_layers=3, num_heads=12, hidden_dim=768, mlp_dim=3072, num_classes=1000
    )
    # Without weights its classifier is all zeros, and no method sees anything.
    nn.init.normal_(module.heads.head.weight, generator=torch.Generator().manual_seed(0))
    return replace(sess_ray.load_model(module, input_size=SIDE), name="vit_b_16")


def explains(name, model, pixels):
    """Explain an image; or refuse, in one line that says what can."""
    sess = SESS(model, method=name, num_scales=None, device="cpu", method_options=FEW.get(name))
    [[found]] = sess.explain([pixels], [[7]])
    assert np.isfinite(found.saliency).all()
    assert found.saliency.shape == pixels.shape[:2]


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_happens(model, photographs, monkeypatch):
    # Three live channels a patch: whether a method works does not depend on how many there are.
    alive = perturbation._alive
    monkeypatch.setattr(perturbation, "_alive", lambda maps: alive(maps) & (alive(maps).cumsum(-1) <= 3))
    monkeypatch.setattr(
        "sess_ray.models.onednn.fuse_convolutions", lambda *_, **__: None
    )  # would take longer than the one image
    live = ablation._live
    monkeypatch.setattr(ablation, "_live", lambda activations: live(activations)[:3])
    pixels = photographs["chelsea.png"][:240, :300]
    prepared = model.prepared(torch.device("cpu"), "fp32")
    monkeypatch.setattr(Model, "prepared", lambda *_: prepared)  # once: a copy takes longer than a map
    works = {name: methods.get(name).refusal(prepared) is None for name in methods.names()}
    for name in filter(works.get, works):
        explains(name, model, pixels)
    for name in [name for name in works if not works[name]][:1]:  # each runs the checks of all methods
        with pytest.raises(SessError) as refused:
            explains(name, model, pixels)
        reason, others = str(refused.value).split("; these methods can: ")
        assert reason.startswith(f"{name} cannot explain {model.name}: ")
        assert others.split(", ") == list(filter(works.get, works))
    [table] = (part for part in DOCS.read_text().split("\n\n") if model.name in part and part.startswith("| method"))
    header, _, *lines = table.splitlines()
    column = [cell.strip() for cell in header.strip("|").split("|")].index(model.name)
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    found = {name: "yes" if works[name] else "no" for name in works}
    assert found == {row[0]: row[column] for row in rows}, markdown([("method", model.name), *found.items()])
