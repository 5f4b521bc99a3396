"""A model of one's own that breaks on one of the test images, and a method of one's own."""

from __future__ import annotations

import torch
from torch import nn


class Fragile(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 7, stride=8), nn.ReLU())
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        brightness = x.mean((1, 2, 3))
        if (brightness < -0.75).any():  # the rocket at night
            raise RuntimeError("this image is too much")
        return self.classifier(self.features(x).mean((2, 3)))


def model():
    torch.manual_seed(0)
    return Fragile()


def brightness(_model, patches, _targets):
    return patches.mean(1)
