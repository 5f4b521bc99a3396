"""Metrics that ask the model, and the sanity check, say on a device what they say on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sess_ray import SESS
from sess_ray.metrics.perturbation import ModelMetric, at_input_size, scored
from sess_ray.metrics.sanity import parameter_randomisation
from sess_ray.metrics.suite import SUITE
from tests.device import counting

pytestmark = pytest.mark.device
ASKING = [name for name, entry in SUITE.items() if entry.asks]


@pytest.fixture(scope="module")
def pairs():
    """Pictures with maps."""
    generator = np.random.default_rng(5)
    sizes = ((90, 120), (41, 70))
    return [
        (generator.integers(0, 256, (*size, 3), np.uint8), generator.random(size).astype(np.float32)) for size in sizes
    ]


def answers(model, pairs, names, batch_size):
    """Return the scores of each picture's series, one metric after the other, and the values made of them."""
    metrics = [SUITE[name].make() for name in names]
    assert all(isinstance(metric, ModelMetric) for metric in metrics)
    requests = (
        (metric.series(*at_input_size(*pair, model)), target)
        for pair, target in zip(pairs, (1, 3), strict=True)
        for metric in metrics
    )
    found = list(scored(model, requests, batch_size))
    values = [metric.measure(own) for metric, own in zip(metrics * len(pairs), found, strict=True)]
    return np.concatenate(found), np.array(values)


@pytest.mark.parametrize("name", ASKING)
def test_what_a_metric_asks_is_answered_as_on_a_cpu(model, pairs, device, tolerance, name):
    ours, theirs = (answers(model.prepared(torch.device(one), "fp32"), pairs, [name], 7) for one in (device, "cpu"))
    for some, others in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(some, others, atol=tolerance)


def test_many_metrics_share_batches_and_no_copy_to_the_device_blocks(model, pairs, device, tolerance):
    ready = model.prepared(device, "fp32")
    assert ready.scorer is not None  # made when it is first needed
    counting.COUNTS.clear()
    ours, values = answers(ready, pairs, ASKING, 64)
    assert not counting.COUNTS.blocking
    theirs, wanted = answers(model.prepared(torch.device("cpu"), "fp32"), pairs, ASKING, 64)
    np.testing.assert_allclose(ours, theirs, atol=tolerance)
    np.testing.assert_allclose(values, wanted, atol=tolerance)


@pytest.mark.parametrize("kind", ["cascading", "independent"])
def test_a_randomised_model_is_as_unlike_as_on_a_cpu(model, pairs, device, tolerance, kind):
    found = []
    for one in (device, "cpu"):

        def explain(changed, one=one):
            sess = SESS(changed, num_scales=1, device=one)
            return [own.saliency for [own] in sess.explain([pixels for pixels, _ in pairs], [[1], [3]])]

        ready = model.prepared(torch.device(one), "fp32")
        steps = list(parameter_randomisation(ready, explain, kind, steps=2))
        assert [name for name, _ in steps] == ["classes", "first"]
        found.append([[(same.ssim, same.spearman) for same in own] for _, own in steps])
    np.testing.assert_allclose(*found, atol=100 * tolerance)


def test_weights_have_the_same_name_anywhere(model, device):
    first, second = (model.prepared(torch.device(one), "fp32").weights_sha256() for one in (device, "cpu"))
    assert first == second
