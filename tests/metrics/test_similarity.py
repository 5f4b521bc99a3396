"""How much two maps are alike."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.stats

from sess_ray import SessError
from sess_ray.metrics.sanity import (
    Similarity,
    similarity,
)
from tests import nets


def test_a_map_is_like_itself_and_unlike_its_inverse():
    saliency = np.random.default_rng(1).random((40, 50))
    assert similarity(saliency, saliency) == Similarity(1.0, 1.0)
    found = similarity(saliency, 1 - saliency)
    assert found.spearman == pytest.approx(-1, abs=1e-12)
    assert found.ssim < -0.9  # equal means and spreads, and all of the covariance negative
    # Neither sees scale nor offset, and ranks no monotone change either.
    moved = similarity(saliency, 3 * saliency + 2)
    assert (moved.ssim, moved.spearman) == (pytest.approx(1, abs=1e-12), 1.0)
    bent = similarity(saliency, saliency**3)
    assert bent.spearman == 1.0
    assert bent.ssim < 0.95


def test_maps_that_have_nothing_in_common():
    rng = np.random.default_rng(2)
    found = similarity(rng.random((200, 300)), rng.random((200, 300)))
    assert abs(found.spearman) < 4 / np.sqrt(60_000)
    assert abs(found.ssim) < 0.05


def test_rank_correlation_with_ties_by_hand():
    first, second = np.zeros((7, 7)), np.zeros((7, 7))
    first[0, :4] = 1, 2, 2, 3
    second[0, :4] = 5, 0, 5, 1
    # The first map has ranks 23 (45 zeros), 46, 47.5, 47.5, 49; the second 23.5 (46 zeros), 47, 48.5, 48.5.
    # Less the mean of 25: -2, 21, 22.5, 22.5, 24; and -1.5, 22, 23.5, 23.5.
    #   first:  45 * 4 + 441 + 2 * 506.25 + 576                           = 2209.5
    #   second: 46 * 2.25 + 484 + 2 * 552.25                              = 1692
    #   both:   45 * 3 + 21 * 23.5 + 22.5 * -1.5 + 22.5 * 23.5 + 24 * 22 = 1651.5
    assert similarity(first, second).spearman == pytest.approx(1651.5 / np.sqrt(2209.5 * 1692), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 5, 256, 10**9])
def test_rank_correlation_is_that_of_scipy(levels):
    rng = np.random.default_rng(levels)
    first = rng.integers(0, levels, (30, 40))
    second = first + rng.integers(0, levels, (30, 40))
    expected = scipy.stats.spearmanr(first.ravel(), second.ravel()).statistic
    assert similarity(first, second).spearman == pytest.approx(expected, abs=1e-12)


def test_structural_similarity_by_hand():
    rng = np.random.default_rng(3)
    first, second = rng.random((7, 7)), rng.random((7, 7))
    one, other = nets.min_max(first), nets.min_max(second)
    # One window of 7 x 7; variances over 48; constants 0.01^2 and 0.03^2.
    covariance = np.cov(one.ravel(), other.ravel())
    expected = (2 * one.mean() * other.mean() + 1e-4) / (one.mean() ** 2 + other.mean() ** 2 + 1e-4)
    expected *= (2 * covariance[0, 1] + 9e-4) / (covariance[0, 0] + covariance[1, 1] + 9e-4)
    assert similarity(first, second).ssim == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("empty", [np.zeros((20, 20)), np.full((20, 20), 0.4), np.full((20, 20), np.nan)])
def test_constant_maps_are_never_nan(empty):
    saliency = np.random.default_rng(4).random((20, 20))
    for found in (similarity(saliency, empty), similarity(empty, saliency)):
        assert found.spearman == 0.0
        assert 0 <= found.ssim < 0.1
    assert similarity(empty, empty) == Similarity(1.0, 0.0)


def test_nan_counts_as_zero():
    first, second = np.random.default_rng(5).random((2, 20, 20))
    holes = first.copy()
    holes[3:6], first[3:6] = np.nan, 0
    assert similarity(holes, second) == similarity(first, second)


@pytest.mark.parametrize(("first", "second"), [((20, 20), (20, 21)), ((6, 30), (6, 30))])
def test_maps_that_can_not_be_compared(first, second):
    with pytest.raises(SessError, match="give two of one size, 7 x 7 or more"):
        similarity(np.ones(first), np.ones(second))


def test_similarity_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(SessError, match=r"^similarity of maps: needs scikit-image: install sess-ray\[evaluate\]$"):
        similarity(np.ones((9, 9)), np.ones((9, 9)))
