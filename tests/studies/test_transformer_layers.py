"""The study of transformers' layers: its images, its maps and its tables."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from sess_ray import SESS, load_model
from studies import figures

study = pytest.importorskip("studies.transformer_layers", reason="needs timm")


@pytest.fixture(scope="module")
def images():
    """Scenes on grey, each with two figures."""
    grey = np.full((2, 96, 96, 3), 128, np.uint8)
    return figures.scenes(grey, 40, np.random.default_rng(0), (0.12, 0.2), 1.0).of_two(24)


def test_a_figure_is_where_its_mask_is_and_has_its_classes_hues(images):
    assert len(images.images) == 24
    assert not images.masks.all(1).any()  # figures do not overlap
    drawn = (images.images != 128).any(-1)
    assert (drawn & ~images.masks.any(1)).sum() == 0
    for picture, classes, masks in zip(images.images, images.classes, images.masks, strict=True):
        for number, mask in zip(classes, masks, strict=True):
            colours = 255 * figures.HUES[number // figures.PATTERNS]
            apart = np.abs(picture[mask][:, None] - colours[None]).max(-1)
            assert (apart.min(1) <= 26).all()  # of one of the two
            assert 0.1 < (apart.argmin(1) == 0).mean() < 0.9
    assert images.labels().sum(1).tolist() == [2] * 24
    assert len(np.unique(images.classes)) == figures.CLASSES


def test_maps_of_whole_images_are_those_of_the_engine():
    grey = np.full((1, study.SIDE, study.SIDE, 3), 128, np.uint8)
    shown = figures.scenes(grey, 8, np.random.default_rng(1), (0.12, 0.2), 1.0).of_two(3)
    torch.manual_seed(0)
    make, layers = study.NETS["Swin"]
    model = load_model(
        make().eval(), layer=layers["final norm"], input_size=study.SIDE, mean=0.5, std=0.5, activation="sigmoid"
    )
    engine = SESS(model, "hirescam", num_scales=None, device="cpu")
    expected = [one.saliency for both in engine.explain(list(shown.images), shown.classes.tolist()) for one in both]
    found = study.maps_of(shown, "hirescam")(model)
    assert len(found) == len(expected) == 6
    for one, other in zip(found, expected, strict=True):
        assert other.max() == 1
        np.testing.assert_allclose((one - one.min()) / (one.max() - one.min()), other, atol=1e-4)


@pytest.mark.parametrize("kind", list(study.NETS))
def test_where_positions_have_a_gradient(kind):
    """A class token takes all that the head sees of the positions in the last attention; a mean takes it at the end."""
    torch.manual_seed(0)
    make, layers = study.NETS[kind]
    net = make().eval()
    patches = torch.randn(1, 3, study.SIDE, study.SIDE)
    for what, layer in layers.items():
        model = load_model(net, layer=layer, input_size=study.SIDE, activation="sigmoid")
        tap = model.prepared(torch.device("cpu"), "fp32").tap(patches)
        assert tap.activations.shape[2:] == (6, 6)
        behind = what in {"second norm of the last block", "output of the last block", "final norm"}
        assert bool(tap.gradients(torch.tensor([3])).any()) == (kind != "ViT, class token" or not behind)


def test_a_table_says_what_a_layer_is_more_than_the_default():
    def rows(layer, values):
        facts = {"layer": layer, "method": "gradcam", "set": "whole", "target": 1}
        return [facts | {"image": number, "pxap": value, "pointing": 1.0} for number, value in enumerate(values)]

    nets = [
        {"net": "Swin", "seed": seed, "right": 0.9, "rows": rows(study.DEFAULT, [0.2, 0.4]) + rows("final norm", own)}
        for seed, own in enumerate(([0.3, 0.5], [0.1, 0.5]))
    ]
    text = study.tables(nets)
    assert re.search(rf"\| {study.DEFAULT} +\| 30.0 ", text)
    assert re.search(r"\| final norm +\| 35.0: \+5.0 \(\S+ to \S+\), 1/2 \|", text)
    assert re.search(r"\| Swin +\| 1 +\| 0.900 \|", text)
