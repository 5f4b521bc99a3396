"""Models and methods of one's own, some of which break, or kill their process, on one of the test images."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn


class Fragile(nn.Module):
    deadly = False

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 7, stride=8), nn.ReLU())
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        brightness = x.mean((1, 2, 3))
        if (brightness < -0.75).any():  # the rocket at night
            if self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("this image is too much")
        return self.classifier(self.features(x).mean((2, 3)))


def model():
    torch.manual_seed(0)
    return Fragile()


def deadly_model():
    fragile = model()
    fragile.deadly = True
    return fragile


class Deadly(int):
    """A limit that kills who compares an image of 320 x 240 pixels with it."""

    def __lt__(self, other):
        if other == 320 * 240:
            os.kill(os.getpid(), signal.SIGKILL)
        return int(self) < other


def brightness(_model, patches, _targets):
    return patches.mean(1)


def signed(_model, patches, _targets, *, folder="."):
    """Leave a file named by the process; take a while."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(0.2)
    return patches.mean(1)


class SlowToStart(Fragile):
    """Can not be unpickled in another process before a file is there, which the first attempt leaves."""

    def __init__(self, flag):
        super().__init__()
        self.flag, self.home = flag, os.getpid()

    def __setstate__(self, state):
        super().__setstate__(state)
        if os.getpid() != self.home and not Path(self.flag).exists():
            Path(self.flag).touch()
            raise RuntimeError("the GPU is still busy")


def slow_to_start():
    return SlowToStart(os.environ["SESS_RAY_TEST_FLAG"])
