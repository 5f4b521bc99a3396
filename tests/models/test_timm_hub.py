"""Models that timm has written to a folder, as from the hub."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sess_ray
from sess_ray import SESS, SessError

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.slow  # to import timm alone takes seconds
NAMES = ["walrus", "gull", "crab"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("timm")
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=3, **size).eval()
    network.pretrained_cfg |= {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    save_for_hf(network, folder, {"num_classes": 3, "label_names": NAMES}, size, safe_serialization=True)
    return folder, network


def test_a_folder_is_the_model_with_its_names_and_pixels(saved):
    folder, network = saved
    model = sess_ray.load_model(f"local-dir:{folder}")
    assert (model.input_size, model.mean, model.std) == (32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert (model.classes, model.layer, model.layout) == (tuple(NAMES), "blocks.1.norm1", "NTC")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), network(images))
    [[found]] = SESS(model, num_scales=1, device="cpu").explain([np.zeros((40, 48, 3), np.uint8)], [["gull"]])
    assert (found.target, found.saliency.shape) == (1, (40, 48))
    own = sess_ray.load_model(f"local-dir:{folder}", {key: value * 0 for key, value in network.state_dict().items()})
    assert not own.module(images).any()


def test_what_is_not_there_is_one_line(tmp_path):
    import huggingface_hub.constants as hub

    before, hub.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE, True
    try:
        for name in (f"local-dir:{tmp_path}", "hf-hub:no/where"):
            with pytest.raises(SessError, match=f"^cannot load {name}: ") as refused:
                sess_ray.load_model(name)
            assert "\n" not in str(refused.value)
    finally:
        hub.HF_HUB_OFFLINE = before
