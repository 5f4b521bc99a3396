"""Pixels that speak neither for a map nor against it: COCO's crowds, and objects that are marked difficult."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray.io.annotations import Annotation, Object
from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.evaluate.facts import facts_of

ROW = {"height": 8, "width": 10, "target": 3, "peak_x": 1, "peak_y": 1}
CLASSES = {"cat": (3,), "dog": (4,)}
CAT = Object("cat", (0, 0, 4, 4))


def measured(name, saliency, objects):
    _, facts = facts_of(ROW, Annotation("a.jpg", objects), CLASSES, "boxes")
    return SUITE[name].compare(SUITE[name].make(), saliency, facts), facts


@pytest.mark.parametrize("name", ["pxap", "pxap_pooled"])
@pytest.mark.parametrize("mark", [{"crowd": True}, {"difficult": True}])
def test_pixels_of_crowds_and_of_what_is_difficult_do_not_count(name, mark):
    random = np.random.default_rng(0)
    saliency = random.random((8, 10))
    saliency.flat[:2] = 0, 1  # the metrics stretch a map by its least and its largest value
    crowd = Object("cat", (2, 2, 9, 7), **mark)
    found, facts = measured(name, saliency, [CAT, crowd])
    assert facts.ignored.sum() == 7 * 5 - 4
    other = np.where(facts.ignored, random.random((8, 10)), saliency)
    np.testing.assert_array_equal(found, measured(name, other, [CAT, crowd])[0])
    assert np.any(found != measured(name, saliency, [CAT, Object("cat", crowd.box)])[0])
    counted = ~facts.ignored
    inside = facts.region[counted]
    if name == "pxap":
        order = np.argsort(-saliency[counted])
        hits = inside[order]
        assert found == pytest.approx((hits.cumsum() / np.arange(1, hits.size + 1))[hits].mean())
    else:
        assert (found[:101].sum(), found[101:].sum()) == (inside.sum(), (~inside).sum())
    # A crowd of another class is beside the target as all else is.
    assert measured(name, saliency, [CAT, Object("dog", (2, 2, 9, 7), crowd=True)])[1].ignored is None


@pytest.mark.parametrize("name", ["pxap", "pxap_pooled", "pointing_game"])
def test_a_crowd_alone_has_no_precision(name):
    found, facts = measured(name, np.eye(8, 10), [Object("cat", (0, 0, 4, 4), crowd=True)])
    assert found == (1.0 if name == "pointing_game" else None)
    assert facts.region.sum() == 16
