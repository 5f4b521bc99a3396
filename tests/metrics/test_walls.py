"""Walls of windows in maps, against known answers and a literal loop."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray import SESS, SessError
from sess_ray.metrics.walls import walls
from sess_ray.windows import sess_plan, whole_plan

PLAN = sess_plan(300, 450, 96, 4, 96)


def smooth_map(height, width):
    y, x = np.mgrid[:height, :width]
    return np.sin(y / 60 + 0.3) * np.cos(x / 80) + 0.2 * np.sin((x + y) / 45)


def by_hand(saliency, plan, kept):
    """Walk along every border pixel by pixel."""
    jumps, others = [], []
    height, width = saliency.shape
    for number, (scale, y, x) in enumerate(plan.positions()):
        if not kept[number]:
            continue
        high, wide = plan.scales[scale].height, plan.scales[scale].width
        top, bottom = round(y * (height / high)), round((y + plan.sides[0]) * (height / high))
        left, right = round(x * (width / wide)), round((x + plan.sides[1]) * (width / wide))
        for line in (left, right):
            if min(line, width - line) <= 16:
                continue
            for place, found in ((line, jumps), (line - 12, others), (line + 12, others)):
                steps = [abs(saliency[row, place + 2] - saliency[row, place - 3]) for row in range(top, bottom)]
                found.append(sum(steps) / len(steps))
        for line in (top, bottom):
            if min(line, height - line) <= 16:
                continue
            for place, found in ((line, jumps), (line - 12, others), (line + 12, others)):
                steps = [abs(saliency[place + 2, col] - saliency[place - 3, col]) for col in range(left, right)]
                found.append(sum(steps) / len(steps))
    return sum(jumps) / len(jumps) / (sum(others) / len(others))


@pytest.mark.parametrize(("plan", "share"), [(PLAN, 1.0), (PLAN, 0.3), (sess_plan(300, 450, (140, 80), 2), 0.5)])
def test_a_literal_loop_says_the_same(plan, share):
    rng = np.random.default_rng(5)
    kept = rng.random(plan.num_patches) < share
    saliency = smooth_map(300, 450) + rng.random((300, 450))
    assert walls(saliency, plan, kept) == pytest.approx(by_hand(saliency, plan, kept), rel=1e-12)
    assert walls(7 - 3 * saliency, plan, kept) == pytest.approx(walls(saliency, plan, kept))


def test_a_smooth_map_has_none_and_steps_at_the_borders_show():
    kept = np.zeros(PLAN.num_patches, bool)
    kept[[3, 11, 20]] = True
    saliency = smooth_map(300, 450)
    assert walls(saliency, PLAN, kept) == pytest.approx(1, abs=0.05)
    raised = saliency.copy()
    for number in np.flatnonzero(kept):
        scale, y, x = PLAN.positions()[number]
        down, across = 300 / PLAN.scales[scale].height, 450 / PLAN.scales[scale].width
        raised[round(y * down) : round((y + 96) * down), round(x * across) : round((x + 96) * across)] += 0.5
    assert walls(raised, PLAN, kept) > 3
    others = np.roll(kept, 6)  # steps elsewhere are no walls of these windows
    assert walls(raised, PLAN, others) < walls(raised, PLAN, kept) / 2


def test_where_there_is_nothing_to_compare():
    flat = np.zeros((300, 450))
    assert np.isnan(walls(flat, PLAN, np.ones(PLAN.num_patches, bool)))
    assert np.isnan(walls(smooth_map(300, 450), PLAN, np.zeros(PLAN.num_patches, bool)))
    assert np.isnan(walls(smooth_map(300, 450), whole_plan(300, 450, 96), np.ones(1, bool)))
    plan = sess_plan(100, 200, 100, 1, 100)
    step = np.zeros((100, 200))
    step[:, 100:] = 1
    assert walls(step, plan, np.ones(2, bool)) == np.inf
    with pytest.raises(SessError, match="do not fit a plan of 2 windows"):
        walls(step.T, plan, np.ones(2, bool))


@pytest.mark.slow
def test_an_explanation_of_few_windows_has_more_than_one_of_all(photographs, lite0):
    found = {}
    for ratio in (0.0, 0.9):
        sess = SESS(lite0, num_scales=4, pre_filter_ratio=ratio, device="cpu")
        [[explanation]] = sess.explain([photographs["chelsea.png"]], [[281]])
        found[ratio] = walls(explanation.saliency, explanation.plan, explanation.patches["kept"])
    assert found[0.9] > 1.2 * found[0.0]
