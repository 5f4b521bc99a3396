"""Sums over results in parts: of rows, of classes, and of pairs, with limits that small tables pass."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.cluster.calls import Here
from sess_ray.pipeline.evaluate import counting, pairing, pictures, sums
from sess_ray.pipeline.evaluate.pictures import chosen
from sess_ray.pipeline.evaluate.results import joined
from sess_ray.pipeline.evaluate.sums import Sums
from tests.pipeline.evaluate.made import METRICS, reading, rows, told


class Lanes(Here):
    """As tasks do, several lanes with several lots at a time; what is given on cannot be written to."""

    ahead, lanes = 1, 3

    def __call__(self, function, *args):
        found = function(*args)
        for array in found.arrays.values() if isinstance(found, Sums) else ():
            array.flags.writeable = False
        return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_once", "files", "classes", "partition"),
    [(7, 1000, 2**28, 2**20), (1000, 40, 1, 10), (30, 13, 28 * 10**6, 100)],
)
def test_parts_of_any_size_say_the_same_to_the_last_bit(at_once, files, classes, partition, monkeypatch):
    runs = {"base": rows(1), "other": rows(2, count=90)}
    expected = told({name: reading(own) for name, own in runs.items()})
    read = []

    def noted(group):
        return lambda columns: read.append(columns) or group(columns)

    monkeypatch.setattr(counting, "CLASS_BYTES", classes)
    monkeypatch.setattr(sums, "FEW", 0 if at_once == 1000 else 2**20)  # rows of a class and size, before all are added
    monkeypatch.setattr(pairing, "PARTITION_ROWS", partition)
    groups = {name: reading(own, at_once, files) for name, own in runs.items()}
    found = told({name: list(map(noted, own)) for name, own in groups.items()}, Lanes())
    assert found == expected
    # The labels, all sums or those of some classes at a time, the keys, and the sums of pairs.
    lots = {2**28: 1 + 1, 1: 4 + 4, 28 * 10**6: 2 + 1}[classes]
    assert len(read) == (2 + lots) * sum(map(len, groups.values()))


@pytest.mark.parametrize("group", ["all", "size", "class"])
def test_summaries_are_those_of_metrics_that_count_one_map_after_the_other(group):
    own = rows(10)
    found = told({"base": reading(own, 9, 31), "other": reading(own)}, Lanes())
    column = {"all": None, "size": "size", "class": "label"}[group]
    expected = {}
    for name in METRICS:
        for row in own:
            value = "" if column is None else row.get(column)
            if row.get(name) is not None and value is not None:
                metric = expected.setdefault((value, name), SUITE[name].make())
                metric.add(np.array(row[name]), key=row["image_id"], label=row["label"])
    assert len(expected) > 4 * (group != "all")
    of_group = {(place[3], place[4]): summary for place, summary in found.items() if place[:3] == ("base", "", group)}
    assert of_group == {place: metric.summary() for place, metric in expected.items()}


@pytest.mark.slow
def test_a_lane_whose_sums_are_lost_is_missed():
    """The comparison above would see it: here one is left out on purpose."""

    class Losing(Lanes):
        def __call__(self, function, *args):
            if function is counting._merged:
                args = (args[0], args[1][1:])
            return super().__call__(function, *args)

    runs = {name: reading(rows(seed), 7, 30) for name, seed in (("base", 1), ("other", 2))}
    assert told(runs, Losing()) != told(runs)


def test_the_same_run_in_another_order_makes_no_difference():
    own = rows(3)
    shuffled = random.Random(4).sample(own, len(own))
    found = told({"base": reading(own), "other": reading(shuffled, 11, 50)})
    differences = {place: summary for place, summary in found.items() if place[1]}
    assert len(differences) == len(METRICS)
    # Images whose targets come twice are no pairs.
    assert all(0 < summary.n < len(own) for summary in differences.values())
    assert {(summary.mean, summary.low, summary.high) for summary in differences.values()} == {(0.0, 0.0, 0.0)}


def test_pairs_are_those_of_the_definition(monkeypatch):
    monkeypatch.setattr(pairing, "PARTITION_ROWS", 16)
    runs = {"base": rows(5), "other": rows(6)}
    left = list(runs.values())
    pairs = []
    for same in ("target", "label"):
        keys = [[(row["image_id"], row[same]) for row in own] for own in left]
        both = {key for key in keys[0] if keys[0].count(key) == 1 and keys[1].count(key) == 1}
        pairs += [[own[key.index(place)] for own, key in zip(left, keys, strict=True)] for place in both]
        left = [[row for row in own if (row["image_id"], row[same]) not in both] for own in left]
    assert len(pairs) > 20
    found = told({name: reading(own, 13, 70) for name, own in runs.items()})
    for name in ("pxap", "insertion_rise", "pointing_game"):
        values = [[row.get(name) for row in pair] for pair in pairs]
        counted = [pair for pair in values if None not in pair]
        assert found["other", "base", "all", "", name].n == len(counted)
        if not SUITE[name].make().per_class:
            means = np.mean(counted, 0)
            assert found["other", "base", "all", "", name].mean == pytest.approx(means[1] - means[0], abs=1e-12)


def test_partitions_keep_images_together(monkeypatch):
    monkeypatch.setattr(pairing, "PARTITION_ROWS", 20)
    groups = [reading(rows(seed), 9, 50) for seed in (7, 8)]
    found = [pairing.gathered(part) for part in pairing.partitions(groups, images_of, 240, Here())]
    assert len(found) == 12
    for place, seed in enumerate((7, 8)):
        ids = [both[place]["image_id"].to_pylist() for both in found]
        assert sorted(name for own in ids for name in own) == sorted(row["image_id"] for row in rows(seed))
        assert sum(len(set(own)) for own in ids) == len({row["image_id"] for row in rows(seed)})
    for name in {row["image_id"] for row in rows(7)}:
        assert len([both for both in found for table in both if name in table["image_id"].to_pylist()]) <= 2


def images_of(group):
    return group(["image_id", "target"])


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("levels", [3, 10**6])
def test_images_to_show_are_those_of_all_values(better, levels, monkeypatch):
    """Also where many are the same, of which names decide."""
    monkeypatch.setattr(pairing, "PARTITION_ROWS", 50)
    draw = random.Random(levels)
    values = {
        run: {(f"{number}.jpg", target): draw.randrange(levels) / levels for number in range(90) for target in (1, 2)}
        for run in ("sess", "base")
    }
    for key in draw.sample(sorted(values["base"]), 30):
        del values["base"][key]
    runs = {}
    for run, own in values.items():
        known = [
            {"image_id": name, "target": target, "label": "a", "pxap": value} for (name, target), value in own.items()
        ]
        runs[run] = reading([*known, {"image_id": "none.jpg", "target": 1}], 17, 70)
    call = Here()
    ends = pictures._ends(runs["sess"], "pxap", better, call)
    assert ends.count == 180
    for pair in (None, ("sess", "base")):
        among = ends.keys | (pictures._apart((runs["sess"], runs["base"]), "pxap", 360, call) if pair else set())
        assert len(among) <= 3 * pictures.AMONG
        few, labels = pictures._told(runs, "pxap", among, call)
        assert chosen(few, pair, better) == chosen(values, pair, better)
        assert set(labels.values()) == {"a"}


def test_tables_are_joined_to_larger_ones():
    found = list(joined(reading(rows(9))[0](["image_id"]), 7)) + list(joined(reading(rows(9), 10)[0](["image_id"]), 25))
    assert [len(table) for table in found] == [120, 30, 30, 30, 30]
    assert list(joined([], 7)) == []
