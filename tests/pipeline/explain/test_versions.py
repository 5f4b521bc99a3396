"""The versions of other packages that a map depends on, which a run compares that goes on."""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace

import pytest

from sess_ray import SessError
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.resume import PACKAGES, made_with, refuse_other_code
from tests.fragile import brightness
from tests.nets import small


@pytest.mark.parametrize(
    ("model", "method", "expected"),
    [
        ("resnet50", "gradcam", []),
        ("timm/resnet50", "gradcam", ["timm"]),
        ("vit_tiny_patch16_224", "captum:Saliency", ["timm", "captum"]),
        ("hf:folder", "pytorch_grad_cam:GradCAM", ["transformers", "grad-cam"]),
        ("open_clip:ViT-B-32/openai", "zennit:epsilon_plus", ["open-clip-torch", "zennit"]),
        ("tests.fragile:model", "tests.fragile:brightness", ["module tests.fragile"]),
    ],
)
def test_versions_of_what_is_used(model, method, expected):
    sess = SimpleNamespace(method=SimpleNamespace(function=brightness))
    made = made_with(ExplainConfig(model=model, method=method), small()[0], sess)
    assert [name for name in made if name not in ("weights", "sess_ray", *PACKAGES)] == expected
    for name in expected:
        assert name.startswith("module ") or made[name] == version(name)
        with pytest.raises(SessError, match=rf"made with other versions of {name} \(0\.0 then, "):
            refuse_other_code({"made_with": made | {name: "0.0"}}, made, "out")
    refuse_other_code({"made_with": made}, made, "out")
