"""Other libraries' methods, and how their maps are compared with ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

LAYER = "features.3"
TARGETS = torch.tensor([3, 0, 4])


class Net(nn.Module):
    """Layers at the patch's own size, so that nothing is enlarged; large gradients, for what adds an epsilon."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(8)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU()
        )
        self.pool = nn.Sequential(nn.Conv2d(6, 6, 3, stride=2), nn.ReLU(), nn.AvgPool2d(5))
        self.classes = nn.Linear(6 * 9, 5)
        self.classes.weight.data.mul_(300)

    def forward(self, x):
        return self.classes(self.pool(self.features(x)).flatten(1))


def oracle(name):
    return pytest.importorskip(name, reason=f"{name.split('.')[0]} is a second oracle: pip install 'sess-ray[oracles]'")


def min_max(maps):
    maps = torch.as_tensor(maps).detach().float()
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    assert (high > low).all()
    return (maps - low) / (high - low)


def same(found, expected, atol=1e-5):
    torch.testing.assert_close(min_max(found), min_max(expected), atol=atol, rtol=0)


def leaf(patches):
    return patches.clone().requires_grad_()


def grad_cam(name, of=lambda logits: logits):
    def run(model, patches, targets):
        library = oracle("pytorch_grad_cam")
        with getattr(library, name)(model.module, [model.module.get_submodule(model.layer)]) as cam:
            return cam(leaf(patches), [lambda logits, i=int(i): of(logits)[i] for i in targets])

    return run


def with_sign(projections, means):
    """Return projections (N, u, v) with the sign that goes with the mean over channels, then ReLU."""
    agrees = (projections * means).sum((1, 2), keepdims=True) >= 0
    return np.maximum(np.where(agrees, projections, -projections), 0)
