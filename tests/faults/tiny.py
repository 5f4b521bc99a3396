"""A small classifier that takes its time: long enough runs to be hit in, and no load on the machine."""

from __future__ import annotations

import time

import torch
from torch import nn

import sess_ray

CLASSES = 6
PAUSE = 0.15  # seconds of a forward pass


class Pause(nn.Module):
    """Takes time; a layer of its own, since what else a fused model does beside computing happens once."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            Pause(PAUSE),
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def model():
    torch.manual_seed(0)
    return sess_ray.load_model(Tiny(), input_size=32)
