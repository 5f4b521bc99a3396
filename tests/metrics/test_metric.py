"""What metrics have in common, against plain means and closed forms."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest

from sess_ray.metrics.bootstrap import REPLICATES, _drawn, weights_of
from sess_ray.metrics.metric import CONFIDENCE, Metric, Summary


class Value(Metric):
    def measure(self, value):
        return value


class PerClass(Value):
    per_class = True


class Best(Value):
    curve = True

    def reduce(self, means):
        return means.max(-1)


def counted(values, keys=None, labels=None, kind=Value):
    metric = kind()
    keys = keys or [f"{index}.jpg" for index in range(len(values))]
    for value, key, label in zip(values, keys, labels or [""] * len(values), strict=True):
        metric.update(value, key=key, label=label)
    return metric


def test_a_mean_and_its_maps():
    metric = Value()
    assert metric.update(0.25, key="a.jpg") == 0.25
    metric.add(0.5, key="b.jpg")
    metric.add(0.0, key="b.jpg")
    found = metric.summary()
    assert (found.n, found.mean) == (3, 0.25)
    assert found.low <= 0.25 <= found.high


@pytest.mark.parametrize("draw", ["normal", "exponential", "hits"])
def test_intervals_are_those_of_the_closed_form(draw):
    rng = np.random.default_rng(17)
    values = {
        "normal": rng.normal(3, 2, 400),
        "exponential": rng.exponential(1, 400),
        "hits": (rng.random(400) < 0.3).astype(float),
    }[draw]
    found = counted(values.tolist()).summary()
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    # Ends of 1,000 replicates lie within about a tenth of the half width of where they belong.
    assert found.low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.2 * half)


@pytest.mark.parametrize("draw", ["exponential", "hits"])
def test_intervals_are_those_of_resampling_with_numpy(draw):
    """The percentile bootstrap, which draws as many maps as there are; of 60 sets of 80 maps the mean of each end."""
    rng = np.random.default_rng(19)
    apart = []
    for trial in range(60):
        values = rng.exponential(1, 80) if draw == "exponential" else (rng.random(80) < 0.3).astype(float)
        ours = counted(values.tolist(), [f"{trial}/{index}" for index in range(80)]).summary()
        means = values[rng.integers(0, 80, (1000, 80))].mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        apart.append(np.array([ours.low - low, ours.high - high]) / (high - low))
    # An end of either has a standard deviation of 3 % of the interval's width: together, and of 60 means, 0.6 %.
    np.testing.assert_allclose(np.mean(apart, 0), 0, atol=0.02)
    assert np.std(apart, 0).max() < 0.06


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    # Of 200 intervals 190 are expected, with a standard deviation of 3.1; the bootstrap's are a little short.
    rng = np.random.default_rng(4)
    held = 0
    for trial in range(200):
        keys = [f"{trial}/{index}" for index in range(50)]
        found = counted(rng.normal(0, 1, 50).tolist(), keys).summary()
        held += found.low <= 0 <= found.high
    assert 175 <= held <= 199
    assert CONFIDENCE == 0.95


@pytest.mark.parametrize("kind", [Value, PerClass, Best])
def test_parts_merge_to_the_whole(kind):
    rng = np.random.default_rng(5)
    # Hits, whose sums are exact in whatever order.
    values = list((rng.random((60, 7)) < 0.4).astype(float)) if kind is Best else (rng.random(60) < 0.4).tolist()
    keys = [f"{index % 23}.jpg" for index in range(60)]
    labels = [str(index % 4) for index in range(60)]
    whole = counted(values, keys, labels, kind)
    order = rng.permutation(60)
    merged = kind()
    for part in np.split(order, [0, 11, 40]):
        own = counted([values[i] for i in part], [keys[i] for i in part] or None, [labels[i] for i in part], kind)
        assert merged.merge(own) is merged
    assert merged.n == whole.n == 60
    for group, sums in whole._sums.items():
        np.testing.assert_array_equal(merged._sums[group], sums)
        np.testing.assert_array_equal(merged._counts[group], whole._counts[group])
    # Classes are added up in the order in which they came.
    np.testing.assert_allclose(merged.replicates(), whole.replicates(), rtol=1e-14)


@pytest.mark.parametrize("kind", [Value, PerClass, Best])
def test_sums_are_exact_in_whatever_order_and_parts(kind):
    rng = np.random.default_rng(9)
    values = rng.random((3000, 5) if kind is Best else 3000) ** 4
    keys = [f"{index % 700}.jpg" for index in range(3000)]
    labels = [f"{index % 7}" for index in range(3000)]
    found = []
    for seed, at_once in ((None, 3000), (1, 3000), (2, 1), (3, 251)):
        order = np.arange(3000) if seed is None else np.random.default_rng(seed).permutation(3000)
        metric = kind()
        for first in range(0, 3000, at_once):
            own = order[first : first + at_once]
            part = kind()
            for index in own:
                part.add(values[index], key=keys[index], label=labels[index])
            metric.merge(part)
        found.append(metric.replicates())
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    # And they are the sums of the values themselves, to rounding.
    weights = weights_of(keys).astype(float)
    shares = np.ones(3000)
    if kind is PerClass:
        shares = 1 / np.array([labels.count(label) for label in labels])
    total = [math.fsum(weights[:, place] * shares) for place in (0, 1, 1000)]
    for place, weight in zip((0, 1, 1000), total, strict=True):
        columns = values.T if kind is Best else values[None]
        means = [math.fsum(weights[:, place] * shares * column) / weight for column in columns]
        assert found[0][place] == pytest.approx(max(means), rel=1e-12)


def test_a_merged_part_stays_as_it_is():
    part, whole = counted([1.0]), Value()
    whole.merge(part)
    whole.add(0.0, key="other.jpg")
    assert (part.n, part.summary().mean, whole.n, whole.summary().mean) == (1, 1.0, 2, 0.5)


def test_means_over_classes():
    values, labels = [1.0, 1.0, 1.0, 0.0], ["cat", "cat", "cat", "dog"]
    assert counted(values, labels=labels).summary().mean == 0.75
    metric = counted(values, labels=labels, kind=PerClass)
    assert (metric.n, metric.summary().mean) == (4, 0.5)
    # Replicates: each cat weighs a third of the dog, in all of them.
    weights = weights_of([f"{index}.jpg" for index in range(4)]).astype(float)
    cats, dog = weights[:3].sum(0) / 3, weights[3]
    with np.errstate(invalid="ignore"):
        expected = cats / (cats + dog)
    np.testing.assert_allclose(metric.replicates(), expected, atol=1e-15)
    # A class of which there is one map is not certain.
    assert metric.summary().high - metric.summary().low > 0.9


def test_intervals_of_means_over_classes():
    rng = np.random.default_rng(18)
    sizes, truth = (300, 100, 20), (0.9, 0.5, 0.2)
    drawn = [(rng.random(size) < share).astype(float) for size, share in zip(sizes, truth, strict=True)]
    labels = [str(place) for place, values in enumerate(drawn) for _ in values]
    found = counted(np.concatenate(drawn).tolist(), labels=labels, kind=PerClass).summary()
    means = np.array([values.mean() for values in drawn])
    assert found.mean == pytest.approx(means.mean(), abs=1e-12)
    # By the delta method for a ratio: sum over maps of ((value - mean) / size of its class)^2, over classes^2.
    spread = sum(((values - means.mean()) ** 2).sum() / len(values) ** 2 for values in drawn) / 9
    half = 1.96 * math.sqrt(spread)
    assert found.low == pytest.approx(means.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(means.mean() + half, abs=0.2 * half)


def test_replicates_are_weighted_means():
    values, keys = [0.1, 0.7, 0.4], ["a", "b", "a"]
    weights = weights_of(keys).astype(float)
    total = weights.sum(0)
    expected = np.divide(values @ weights, total, out=np.full(1 + REPLICATES, np.nan), where=total > 0)
    np.testing.assert_allclose(counted(values, keys).replicates(), expected, atol=1e-15)


def test_curves_are_reduced_in_each_replicate():
    values = [np.array([1.0, 0.0]), np.array([0.0, 0.5])]
    metric = counted(values, kind=Best)
    first, second = weights_of(["0.jpg", "1.jpg"]).astype(float)
    with np.errstate(invalid="ignore"):
        expected = np.maximum(first, 0.5 * second) / (first + second)
    np.testing.assert_array_equal(metric.replicates(), expected)
    assert metric.summary().mean == 0.5


def test_weights_are_the_poisson_numbers_of_splitmix64():
    """In whole numbers of Python's, from the definition: a step, two products, and an inverted distribution."""
    # The first number after the seed 0, which is in many implementations' tests.
    assert _drawn(np.zeros(1, np.uint64))[0, :4].tolist() == [0xCDAF, 0x7B1D, 0xA839, 0xE220]
    below = np.cumsum([math.exp(-1) / math.factorial(count) for count in range(12)])
    keys = ["a.jpg", "n01/ä b.jpg", "a.jpg", "", *map(str, range(100))]
    for key, found in zip(keys, weights_of(keys), strict=True):
        state, expected = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"), [1]
        for _ in range(REPLICATES // 4):
            state = (state + 0x9E3779B97F4A7C15) % 2**64
            mixed = state
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
                mixed = (mixed ^ mixed >> shift) * factor % 2**64
            shares = [((mixed >> 16 * place) % 2**16 + 0.5) / 2**16 for place in range(4)]
            expected += [int(count) for count in np.searchsorted(below, shares)]
        assert found.tolist() == expected


def test_weights_count_once_and_then_as_poisson_numbers():
    [weights] = weights_of(["a.jpg"])
    assert weights.shape == (1 + REPLICATES,)
    assert weights[0] == 1
    drawn = weights_of([f"{index}.jpg" for index in range(500)])[:, 1:]
    shares = [(drawn == count).mean() for count in range(4)]
    # e^-1 / k!; 500,000 numbers: the standard deviation of a share is below 0.0007.
    np.testing.assert_allclose(shares, [0.36788, 0.36788, 0.18394, 0.06131], atol=0.003)
    between = np.corrcoef(drawn)[np.triu_indices(500, 1)]
    assert abs(between.mean()) < 0.001  # 1,000 numbers each: sd 0.032 for one pair, 124,750 pairs
    assert abs(between).max() < 0.2


@pytest.mark.slow
def test_weights_are_those_of_any_process():
    code = "from sess_ray.metrics.bootstrap import weights_of as w; print(*w(['ä/b.jpg'])[0, :40])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [float(number) for number in found.stdout.split()] == weights_of(["ä/b.jpg"])[0, :40].tolist()


def test_maps_of_an_image_are_drawn_together():
    values = np.random.default_rng(6).random(50).tolist()
    names = [f"{index}.jpg" for index in range(50)]
    once = counted(values, names).summary()
    together = counted(values * 4, names * 4).summary()
    apart = counted(values * 4, [f"{name} {turn}" for turn in range(4) for name in names]).summary()
    # Four maps of each image say no more than one, four times as many images do.
    assert (together.n, once.n) == (200, 50)
    np.testing.assert_allclose([together.low, together.high], [once.low, once.high], atol=1e-12)
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 2, rel=0.15)


def test_differences_are_paired():
    values = np.random.default_rng(7).random(100)
    base = counted(values.tolist())
    assert base.difference(counted(values.tolist())) == Summary(100, 0.0, 0.0, 0.0)
    shifted = counted((values + 0.1).tolist()).difference(base)
    np.testing.assert_allclose([shifted.mean, shifted.low, shifted.high], 0.1, atol=1e-12)
    noise = np.random.default_rng(8).normal(0, 0.01, 100)
    found = counted((values + noise).tolist()).difference(base)
    assert found.mean == pytest.approx(noise.mean(), abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * 1.96 * noise.std() / 10, rel=0.2)
    reverse = base.difference(counted((values + noise).tolist()))
    np.testing.assert_allclose([reverse.low, reverse.high], [-found.high, -found.low], atol=1e-12)


def test_runs_of_different_sizes_are_no_pair():
    with pytest.raises(ValueError, match="runs of 2 and 3 maps are not paired"):
        counted([0.0, 1.0]).difference(counted([0.0, 1.0, 1.0]))


@pytest.mark.parametrize("kind", [Value, PerClass, Best])
def test_nothing_counted_is_nan(kind):
    found = kind().summary()
    assert found.n == 0
    assert np.isnan([found.mean, found.low, found.high]).all()
    assert kind().difference(kind()).n == 0


@pytest.mark.parametrize("value", [0.3, np.array([0.3, 0.1])])
def test_maps_of_one_image_have_no_interval(value):
    """Nothing says how images differ: an interval without width would call any difference more than luck."""
    metric = counted([value], kind=Best if np.ndim(value) else Value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metric.summary()
    # More than a third of the replicates have not drawn it.
    assert np.isnan(metric.replicates()).mean() == pytest.approx(math.exp(-1), abs=0.06)
    assert found.mean == pytest.approx(0.3, rel=1e-15)
    assert np.isnan([found.low, found.high]).all()
    metric.add(value, key="another image")
    np.testing.assert_allclose(np.hstack([metric.summary().low, metric.summary().high]), 0.3, rtol=1e-15)
