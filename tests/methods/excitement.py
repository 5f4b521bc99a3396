"""Models of which excitation backprop is asked."""

from __future__ import annotations

import torch
from torch import nn

import sess_ray
from sess_ray import methods
from tests import nets

METHOD = methods.get("excitation_backprop")


def prepared(module, layer, size=nets.SIDE):
    return sess_ray.load_model(module, layer=layer, input_size=size).prepared(torch.device("cpu"), "fp32")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Vgg(nn.Module):
    """Modules alone, as zennit wants them. Without biases each live unit has a positive input."""

    def __init__(self, bias):
        super().__init__()
        torch.manual_seed(6)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.head = nn.Sequential(
            nn.Conv2d(8, 10, 3, padding=1, bias=bias),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(10, 12, 3, stride=2, bias=bias),
            nn.ReLU(),
            nn.AvgPool2d(3),
            nn.Flatten(),
            nn.Linear(12, 6, bias=bias),
            nn.ReLU(),
            nn.Linear(6, 4, bias=bias),
        )

    def forward(self, x):
        return self.head(self.trunk(x))
