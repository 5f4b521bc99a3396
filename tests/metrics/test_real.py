"""Metrics on real images with boxes: known figures, and what storing a map in 8 bits costs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sess_ray import SESS
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.maps import decode_map, encode_map, quantize
from sess_ray.io.regions import region
from sess_ray.metrics import EnergyPointingGame, Insertion, MaxBoxAcc, PointingGame, at_input_size
from sess_ray.metrics.perturbation import scored
from tests.conftest import SHARED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def maps(real_squeezenet):
    """Plain Grad-CAM of the true class: image, explanation, region and boxes."""
    folder = SHARED / "imagenet-val-boxes"
    if not folder.exists():
        pytest.skip("needs images with boxes: set SESS_RAY_DATA to a folder with imagenet-val-boxes")
    found = read_annotations(str(folder / "labels.json"))
    names = sorted(found.by_id)
    images = [np.asarray(Image.open(folder / name).convert("RGB")) for name in names]
    objects = [found.by_id[name].objects for name in names]
    sess = SESS(real_squeezenet, num_scales=None, device="cpu")
    explained = sess.explain(images, [[int(own[0].label)] for own in objects])
    return sess, [
        (pixels, explanation, region(own, *pixels.shape[:2], "boxes"), np.array([thing.box for thing in own]))
        for pixels, [explanation], own in zip(images, explained, objects, strict=True)
    ]


def test_the_pointing_game_without_tolerance_gives_the_known_hits(maps):
    _, rows = maps
    game = PointingGame(tolerance=0)
    hits = [game.measure(found.saliency, covered, found.peak) for _, found, covered, _ in rows]
    small = [hit for hit, (_, _, covered, _) in zip(hits, rows, strict=True) if covered.mean() < 0.25]
    # Published beside the images: 60 of 65, and 28 of the 33 whose boxes take less than a quarter.
    assert abs(sum(hits) - 60) <= 1
    assert len(hits) == 65
    assert abs(sum(small) - 28) <= 1


def test_eight_bits_change_no_metric_by_a_tenth_of_a_point(maps):
    sess, rows = maps
    model = sess.model
    names = ("pointing_game", "energy", "box", "insertion")
    means = {name: [] for name in names}
    for _, found, covered, boxes in rows:
        pair = found.saliency, decode_map(encode_map(quantize(found.saliency)))
        means["pointing_game"].append([PointingGame().measure(one, covered, found.peak) for one in pair])
        means["energy"].append([EnergyPointingGame().measure(one, covered) for one in pair])
        means["box"].append([MaxBoxAcc().measure(one, boxes) for one in pair])
    for metric in [Insertion("rise")]:  # deletion is as many passes again
        for pixels, found, _, _ in rows[::4]:
            pair = found.saliency, decode_map(encode_map(quantize(found.saliency)))
            series = [metric.series(*at_input_size(pixels, one, model)) for one in pair]
            scores = scored(model, [(one, found.target) for one in series], 8)
            means[metric.name].append([metric.measure(own) for own in scores])
    for name in ("pointing_game", "energy", "insertion"):
        whole, stored = np.mean(means[name], 0)
        assert abs(whole - stored) < 0.001, name
    whole, stored = np.mean(means["box"], 0)
    assert abs(whole.max() - stored.max()) < 0.02  # one map of 65
