"""Ways to fuse the windows of an image: those that the engine knows too make its maps, and a table compares them."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray import SESS, load_model
from studies import ratios
from studies.annotated import Thing
from tests import nets


@pytest.fixture(scope="module")
def windows():
    """All windows of an image with a method, and how the engine explains it with other settings."""
    model = load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)
    pixels = np.random.default_rng(5).integers(0, 256, (60, 80, 3), np.uint8)

    def explained(method, ratio, fade, **others):
        sess = SESS(model, method=method, num_scales=4, pre_filter_ratio=ratio, fade=fade, device="cpu", **others)
        return sess.explain([pixels], [[2]])[0][0]

    every = ratios.windows_of(*(explained(method, 0.0, 0.0, keep_maps=True) for method in ("gradient", "gradcam")))
    return every, explained


@pytest.mark.parametrize(
    ("way", "ratio", "fade"), [("r = 0.9", 0.9, 0.0), ("r = 0", 0.0, 0.0), ("r = 0.5, fading 0.25", 0.5, 0.25)]
)
def test_a_way_that_the_engine_knows_makes_its_map(windows, way, ratio, fade):
    every, explained = windows
    found, expected = ratios.WAYS[way](every), explained("gradient", ratio, fade)
    assert expected.saliency.max() > 0
    np.testing.assert_allclose(found.saliency, expected.saliency, atol=1e-5)
    np.testing.assert_array_equal(found.kept, expected.patches["kept"])


def test_what_is_dropped_is_filled_with_grad_cam_as_bright_as_the_method(windows):
    every, _ = windows
    kept = ratios.keep(every.scores, 0.9)
    own, free = ((every.scores * maps.mean((1, 2)))[kept].sum() for maps in (every.maps, every.free))
    weights = every.scores * kept, every.scores * ~kept * own / free
    by_hand = ratios.fused(every, kept, *weights)
    np.testing.assert_allclose(ratios.WAYS["r = 0.9, filled"](every).saliency, by_hand.saliency, atol=1e-6)
    assert np.abs(by_hand.saliency - ratios.WAYS["r = 0.9"](every).saliency).max() > 0.05


def test_the_first_way_is_what_others_are_compared_with(windows):
    every, _ = windows
    board, thing = ratios.Board(["r = 0.5", "r = 0"]), Thing("2", (2,), np.array([[10, 5, 50, 40]]))
    for name in board.walls:
        for image in ("a.jpg", "b.jpg"):
            board.add(name, ratios.WAYS[name](every), thing, image)
    first, second = board.table().split("\n")[2:4]
    assert first.count("+0.0 (+0.0 to +0.0)") == 4
    change = 100 * (board.pxap["r = 0"].summary().mean - board.pxap["r = 0.5"].summary().mean)
    assert abs(change) > 0.1
    assert f"{change:+.1f} (" in second
