"""What annotated images show, as studies read it."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray.metrics import PxAP
from studies.annotated import Thing, precision

RECTANGLE = [[1, 0, 4, 0, 4, 2, 1, 2]]  # x and y of its corners: columns 1 to 4 of rows 0 to 2
CROWD = {"counts": [24, 12, 12], "size": [6, 8]}  # down the columns: columns 4 and 5 of all six rows


def test_crowds_belong_to_a_thing_but_not_to_its_precision():
    thing = Thing("sheep", (348,), np.array([[1, 0, 5, 3]]), [RECTANGLE], [CROWD])
    own, crowd = np.zeros((6, 8), bool), np.zeros((6, 8), bool)
    own[:3, 1:5] = crowd[:, 4:6] = True
    np.testing.assert_array_equal(thing.segments(6, 8), own | crowd)
    np.testing.assert_array_equal(thing.ignored(6, 8), crowd & ~own)
    saliency = np.random.default_rng(3).random((6, 8)).astype(np.float32)
    counted = ~crowd | own
    order = np.argsort(-saliency[counted])
    found = own[counted][order]
    expected = (np.cumsum(found) / np.arange(1, len(found) + 1))[found].mean()
    assert precision(PxAP(), saliency, thing, own | crowd) == pytest.approx(expected, abs=1e-6)


def test_a_crowd_alone_has_no_precision():
    thing = Thing("sheep", (348,), np.array([[4, 0, 6, 6]]), [], [CROWD])
    assert precision(PxAP(), np.ones((6, 8), np.float32), thing, thing.segments(6, 8)) is None
