"""What the authors' own code gave on small inputs: `tests/official/golden.json` says whose code, and which input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sess_ray
from sess_ray.boxes import boxes_region
from sess_ray.metrics.localization import (
    EnergyPointingGame,
    PointingGame,
    box_iou,
    largest_boxes,
    min_max,
    part_boxes,
)
from sess_ray.metrics.perturbation import PRESETS, Preset, auc, deletion, insertion, scored
from sess_ray.metrics.sanity import similarity
from sess_ray.metrics.thresholds import PooledPxAP
from tests.official import GOLDEN

SIDE = 224
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


class Sums(nn.Module):
    """Logits 8 mean(x ramp), 3 mean(x^2) - 1 and 0."""

    def __init__(self):
        super().__init__()
        self.ramp = nn.Parameter(torch.linspace(-1, 1, SIDE).view(1, 1, SIDE, 1))
        self.features = nn.Identity()

    def forward(self, x):
        x = self.features(x)
        means = 8 * (x * self.ramp).mean((1, 2, 3)), 3 * x.square().mean((1, 2, 3)) - 1
        return torch.stack([*means, torch.zeros(len(x))], 1)


def causal_input():
    y, x = torch.meshgrid(
        torch.arange(SIDE, dtype=torch.float64), torch.arange(SIDE, dtype=torch.float64), indexing="ij"
    )
    image = torch.stack([(y / 17).sin() + 0.3 * (x / 11).cos(), (y / 23 + x / 31).cos(), y / 112 - 1]).float()
    saliency = ((SIDE * y + x) * 7919).remainder(50177) / 50177
    model = sess_ray.load_model(Sums(), layer="features", input_size=SIDE, class_names=["a", "b", "c"])
    return model.prepared(torch.device("cpu"), "fp32"), image, saliency


@pytest.mark.parametrize(
    ("preset", "wanted"),
    [
        ("rise", ("rise_causal", "ins", "del")),
        ("groupcam", ("groupcam_causal", "ins_1792", "del_1792")),
        ("two rows", ("groupcam_causal", "ins_448", "del_448")),
    ],
)
def test_insertion_and_deletion(preset, wanted):
    model, image, saliency = causal_input()
    entry, *kinds = wanted
    groupcam = PRESETS["groupcam"]
    chosen = {**PRESETS, "two rows": Preset(lambda _, width: 2 * width, groupcam.kernel, groupcam.border)}[preset]
    target = GOLDEN[entry].get("class_", 1)
    for kind, make in zip(kinds, (insertion, deletion), strict=True):
        [scores] = scored(model, [(make(image, saliency, chosen), target)], 16)
        official = GOLDEN[entry][kind]
        assert auc(scores) == pytest.approx(official["auc"], abs=2e-6)
        np.testing.assert_allclose(scores[:3], official["first"], atol=2e-6)
        if "last" in official:
            np.testing.assert_allclose(scores[-2:], official["last"], atol=2e-6)


@pytest.mark.parametrize(("place", "hit"), GOLDEN["pointing_game"]["hits"].items())
def test_pointing(place, hit):
    region = np.zeros((40, 40), bool)
    region[20, 20] = True
    column, row = map(int, place.split(","))
    saliency = np.zeros((40, 40))
    saliency[row, column] = 1
    assert PointingGame().measure(saliency, region) == (hit == 1)


def test_energy():
    saliency = np.arange(24.0).reshape(4, 6)
    found = EnergyPointingGame().measure(saliency, boxes_region([[1, 1, 4, 3]], 4, 6))
    assert found == pytest.approx(GOLDEN["energy"]["on_the_transposed_map"], abs=1e-8)


def wsol_map():
    y, x = np.mgrid[:40, :60].astype(float)
    return min_max(
        np.exp(-((x - 18) ** 2 + (y - 20) ** 2) / 60) + 0.8 * np.exp(-((x - 45) ** 2 / 40 + (y - 12) ** 2 / 25))
    )


def test_boxes_of_the_largest_and_of_all_parts():
    official = GOLDEN["wsol_boxes"]
    assert [[list(box)] for box in largest_boxes(wsol_map(), THRESHOLDS)] == official["single"]
    for found, wanted in zip(part_boxes(wsol_map(), THRESHOLDS), official["multi"], strict=True):
        assert sorted(found.tolist()) == sorted(wanted)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_overlaps_of_boxes(kind):
    official = GOLDEN["wsol_boxes"]
    truth = np.array([[10, 12, 27, 29], [38, 6, 53, 19]])
    for boxes, wanted in zip(official[kind], official[f"iou_{kind}"], strict=True):
        # Theirs are boxes that include their last pixel, made of corners that exclude it: a pixel larger.
        found = box_iou(np.add(boxes, [0, 0, 1, 1]), np.add(truth, [0, 0, 1, 1]))
        np.testing.assert_allclose(found, np.reshape(wanted, (-1, 2)), atol=1e-7)


def test_average_precision_of_pixels():
    region, ignored = np.zeros((2, 40, 60), bool)
    region[12:29, 10:27] = True
    ignored[5:20, 38:54] = True
    for name, without in (("pxap", None), ("pxap_with_ignore", ignored)):
        metric = PooledPxAP(interval=0.01)
        metric.update(wsol_map(), region, without, key="a")
        assert 100 * metric.summary().mean == pytest.approx(GOLDEN["wsol_pxap"][name], abs=1e-5)


def test_structural_similarity():
    first, second = (np.abs(np.sin(step * np.arange(900.0))).reshape(30, 30) for step in (0.11, 0.113))
    official = GOLDEN["sanity_ssim"]
    found = {
        "notebook": similarity(first, second, "gaussian", data_range=2).ssim,
        "range_1": similarity(first, second, "gaussian").ssim,
        "uniform_7_range_1": similarity(first, second).ssim,
    }
    for name, value in found.items():
        assert value == pytest.approx(official[name], abs=1e-4), name
