"""Every value of tests/official/golden.json that concerns a method: what the authors' own code gave, and ours.

``python -m tests.methods.test_official`` prints the largest difference of each, for the table in docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from unittest.mock import patch as replaced

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sess_ray
from sess_ray import methods
from sess_ray.methods import extremal, xrai
from sess_ray.methods.gradients import attributions
from sess_ray.methods.perturbation import RandomMasks
from tests.official import GOLDEN

CPU = torch.device("cpu")


class Net(nn.Module):
    """The small net of the golden values; parameter n is 0.5 sin(2.3 i + len(n))."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self.b = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.layer = nn.ReLU()
        self.f = nn.Linear(6, 3)
        for name, value in self.named_parameters():
            value.data = 0.5 * waves(value.shape, 2.3, len(name))

    def forward(self, x: Tensor) -> Tensor:
        return 3 * self.f(self.layer(self.b(self.a(x).relu())).amax((2, 3)))


class Excited(nn.Module):
    """The net of excitation backprop; parameter n is sin(1.7 i + len(n))."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 2, 3, padding=1)
        self.c2 = nn.Conv2d(2, 3, 3, padding=1)
        self.fc = nn.Linear(3, 2)
        for name, value in self.named_parameters():
            value.data = waves(value.shape, 1.7, len(name))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.c2(self.c1(x).relu()).relu().mean((2, 3)))


def waves(shape, frequency, phase=0.0):
    """Return sin(frequency i + phase) of the given shape, i counting its elements; float32, as the values were made."""
    return (torch.arange(float(prod(shape))) * frequency + phase).sin().view(tuple(shape))


def net():
    return sess_ray.load_model(Net(), layer="layer", input_size=32).prepared(CPU, "fp32")


def image():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    return torch.stack([(y / 5 + x / 9).sin(), (y / 7).cos(), (x / 4).sin()])[None]


def min_max(value):
    return (value - value.min()) / (value.max() - value.min())


def at(saliency, *places):
    """Return the values of a map (h, w) at these rows and the same columns."""
    return saliency[list(places)][:, list(places)]


def explained(name, patches, target, **options):
    """Return a method's map (h, w) of one patch, at the size of the patch, before min-max."""
    model, method, targets = net(), methods.get(name), torch.tensor([target])
    tap = model.tap(patches)
    offers = {
        "activations": tap.activations,
        "gradients": tap.gradients(targets),
        "same_as": torch.tensor([0]),
        "batch_size": 4,
        "generators": [torch.Generator()],
    }
    given = {key: offers[key] for key in method.given}
    found = method.function(model, patches, targets, **given, **options).detach()
    return F.interpolate(found[None], size=patches.shape[2:], mode="bilinear", align_corners=False)[0, 0]


def rise_mask():
    masks = RandomMasks(1, 3, 0.5, (12, 12), seed=0, device=CPU)
    masks.grids = torch.tensor([[[1.0, 0, 1], [0, 0, 1], [1, 1, 0]]])
    masks.shifts = torch.tensor([[1, 2]])
    mask = masks[0:1][0].double()
    golden = GOLDEN["rise_mask"]
    expected = [*golden["row0"], *golden["row5"], golden["sum"] / 144]
    return torch.cat([mask[0], mask[5], mask.mean()[None]]), expected


def excitation_backprop():
    module = Excited().eval().requires_grad_(False)
    model = sess_ray.Model(module, "excited", "c1", "NCHW", 2, 5, (0.5,) * 3, (0.5,) * 3)
    patch = ((torch.arange(25) % 7) / 7).view(1, 1, 5, 5)
    with replaced.object(sess_ray.Model, "probe", lambda *_: patch.clone()):  # this net sees one colour
        found = methods.get("excitation_backprop").function(model, patch, torch.tensor([1]), layer="c1")
    return found[0], GOLDEN["excitation_backprop"]["map"]


def gradcam_plus_plus(normalize_alpha, key):
    i = np.arange(36)
    values = (np.abs(np.sin(1.3 * i)), 0.2 * np.cos(0.7 * i))  # in the order (h, w, k)
    given = [torch.from_numpy(value.reshape(3, 3, 4)).permute(2, 0, 1)[None].float() for value in values]
    found = methods.get("gradcam++").function(*given, normalize_alpha=normalize_alpha)[0]
    return found / found.max(), GOLDEN["gradcam_plus_plus"][key]


def cameras():
    return at(min_max(explained("cameras", image(), 1, sizes=3, step=10)), 4, 12, 20, 28), GOLDEN["cameras"]["map"]


def groupcam():
    large = F.interpolate(image(), size=(64, 64), mode="bilinear", align_corners=False)
    return at(min_max(explained("groupcam", large, 2, groups=3)), 8, 24, 40, 56), GOLDEN["groupcam"]["map"]


def scorecam():
    return at(min_max(explained("scorecam", image(), 1)), 4, 12, 20, 28), GOLDEN["scorecam"]["map"]


def integrated_gradients():
    found = explained("integrated_gradients", image(), 1, steps=25, rule="linspace")
    return at(found, 4, 12, 20, 28), GOLDEN["integrated_gradients"]["map"]


def integrated_total():
    patch = image()
    found = attributions(net(), patch, torch.tensor([1]), torch.zeros_like(patch), 25, "linspace").sum()
    return found, GOLDEN["integrated_gradients"]["total"]


def smoothgrad(average, key):
    def copies(patches, std, _generators, samples):
        spread = patches.max() - patches.min()
        for sample in range(1, samples + 1):
            yield patches + std * spread * waves([32, 32, 3], 1.1, sample).permute(2, 0, 1)

    with replaced("sess_ray.methods.gradients.noisy", copies):
        found = explained("smoothgrad", image(), 1, samples=4, std=0.15, average=average)
    return at(found, 4, 12, 20, 28), GOLDEN["smoothgrad"][key]


def xrai_ranking():
    y, x = np.mgrid[:20, :20]
    segments = np.stack([y < 10, y >= 8, x < 9, x >= 7, (y - 10) ** 2 + (x - 10) ** 2 < 50])
    found = xrai.ranked(np.sin(0.37 * np.arange(400)).reshape(20, 20), segments)
    return torch.from_numpy(found[[0, 9, 19]][:, [0, 4, 8, 12, 16]]), GOLDEN["xrai_ranking"]["map_rows_0_9_19"]


def extremal_pyramid():
    found = extremal.blur_pyramid(image(), "zero")[0, 0, 0]
    return at(found, 4, 12, 20, 28), GOLDEN["extremal"]["pyramid_level0_channel0"]


def extremal_mask():
    smooth = extremal.SmoothMask(32, CPU, "cropped")
    drawn = smooth(((torch.arange(25) % 5) / 5).view(1, 5, 5))
    assert list(drawn.shape[1:]) == GOLDEN["extremal"]["canvas"]
    return at(smooth.cropped(drawn)[0], 4, 12, 20, 28), GOLDEN["extremal"]["mask"]


# What is compared, and how far ours may be: the golden values are rounded to 5e-8 up to 5e-7.
CHECKS: dict[str, tuple[Callable[[], tuple[Tensor, object]], float]] = {
    "rise": (rise_mask, 2e-7),
    "excitation_backprop": (excitation_backprop, 2e-7),
    "gradcam++": (lambda: gradcam_plus_plus(False, "without_alpha_normalisation"), 5e-7),
    "gradcam++, normalize_alpha": (lambda: gradcam_plus_plus(True, "normalised"), 5e-7),
    "cameras": (cameras, 2e-6),
    "groupcam": (groupcam, 2e-6),
    "scorecam": (scorecam, 2e-6),
    "integrated_gradients, rule=linspace": (integrated_gradients, 5e-7),
    "integrated_gradients, rule=linspace, sum": (integrated_total, 3e-6),
    "smoothgrad": (lambda: smoothgrad("signed", "signed_mean_then_abs_max"), 5e-7),
    "smoothgrad, average=squared": (lambda: smoothgrad("squared", "mean_square_max"), 5e-7),
    "xrai, ranking": (xrai_ranking, 1e-7),
    "extremal_perturbation, border=zero": (extremal_pyramid, 2e-6),
    "extremal_perturbation, canvas=cropped": (extremal_mask, 5e-6),
}


def difference(name: str) -> float:
    """Return the largest difference of our values to the authors'."""
    found, expected = CHECKS[name][0]()
    expected = torch.tensor(expected, dtype=torch.float64)
    assert found.shape == expected.shape
    return float((found.double() - expected).abs().max())


@pytest.mark.parametrize("name", CHECKS)
def test_ours_is_what_the_authors_code_gave(name):
    assert difference(name) <= CHECKS[name][1]


if __name__ == "__main__":
    for name in CHECKS:
        print(f"{name}: {difference(name):.1e}")
