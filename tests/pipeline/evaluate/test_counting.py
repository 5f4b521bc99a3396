"""Sums over results in parts: of rows, of classes, and of pairs, with limits that small tables pass."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.evaluate import counting, pairing, pictures
from sess_ray.pipeline.evaluate.judging import results_schema
from sess_ray.pipeline.evaluate.pictures import chosen
from sess_ray.pipeline.evaluate.report import report
from sess_ray.pipeline.evaluate.results import joined

METRICS = ["pxap", "pointing_game", "max_box_acc", "pxap_pooled", "insertion_rise"]
SIZES = (None, "< 5 %", "> 25 %")


def rows(seed, count=120, images=50):
    """Rows of images with several targets, some of them twice, some without values."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        target = draw.randrange(-2, 4)
        row = {"image_id": f"{draw.randrange(images)}.jpg", "target": target, "label": f"class {abs(target)}"}
        row["insertion_rise"] = draw.choice([None, draw.random()])
        if size := draw.choice(SIZES):
            row |= {"size": size, "pxap": draw.random(), "pointing_game": float(draw.random() < 0.5)}
            row["max_box_acc"] = [float(draw.random() < 0.5) for _ in range(20)]
            row["pxap_pooled"] = [float(draw.randrange(9999)) for _ in range(202)]
        found.append(row)
    return found


def reading(found, at_once=1000):
    table = pa.Table.from_pylist(found, results_schema(METRICS))
    return lambda columns: (table.select(columns).slice(at, at_once) for at in range(0, len(table), at_once))


def told(runs):
    lines = report(runs, METRICS, [("other", "base")])
    return {(line.run, line.base, line.group, line.value, line.metric): line.summary for line in lines}


@pytest.mark.parametrize(("at_once", "classes", "partition"), [(7, 2**29, 2**20), (1000, 1, 10), (30, 6 * 10**6, 100)])
def test_parts_of_any_size_say_the_same_to_the_last_bit(at_once, classes, partition, monkeypatch):
    runs = {"base": rows(1), "other": rows(2, count=90)}
    expected = told({name: reading(own) for name, own in runs.items()})
    read = []

    def counted(own):
        chunks = reading(own, at_once)
        return lambda columns: read.append(columns) or chunks(columns)

    monkeypatch.setattr(counting, "CLASS_BYTES", classes)
    monkeypatch.setattr(pairing, "PARTITION_ROWS", partition)
    assert told({name: counted(own) for name, own in runs.items()}) == expected
    # Once for all sums, and again for the classes that were left; for pairs the keys, and the values.
    by_class = {2**29: 1, 1: 4, 6 * 10**6: 2}[classes]
    assert len(read) == 2 * by_class + 2 + 2


def test_the_same_run_in_another_order_makes_no_difference():
    own = rows(3)
    shuffled = random.Random(4).sample(own, len(own))
    found = told({"base": reading(own), "other": reading(shuffled, 11)})
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
    found = told({name: reading(own, 13) for name, own in runs.items()})
    for name in ("pxap", "insertion_rise", "pointing_game"):
        values = [[row.get(name) for row in pair] for pair in pairs]
        counted = [pair for pair in values if None not in pair]
        assert found["other", "base", "all", "", name].n == len(counted)
        if not SUITE[name].make().per_class:
            means = np.mean(counted, 0)
            assert found["other", "base", "all", "", name].mean == pytest.approx(means[1] - means[0], abs=1e-12)


def test_partitions_leave_no_files_and_keep_images_together(tmp_path, monkeypatch):
    monkeypatch.setattr(pairing, "PARTITION_ROWS", 20)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tables = [list(reading(rows(seed), 9)(["image_id", "target"])) for seed in (7, 8)]
    found = list(pairing.partitions(tables, 240))
    assert len(found) > 6
    shared = {row["image_id"] for row in rows(7)} & {row["image_id"] for row in rows(8)}
    assert len(shared) > 30
    for place, seed in enumerate((7, 8)):
        ids = [[name for name in both[place]["image_id"].to_pylist() if name in shared] for both in found]
        assert sorted(name for own in ids for name in own) == sorted(
            row["image_id"] for row in rows(seed) if row["image_id"] in shared
        )
        assert sum(len(set(own)) for own in ids) == len(shared)
    assert not list(tmp_path.iterdir())


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
        runs[run] = reading([*known, {"image_id": "none.jpg", "target": 1}], 17)
    ends = pictures._ends(runs["sess"], "pxap", better)
    assert ends.count == 180
    for pair in (None, ("sess", "base")):
        among = ends.keys | (pictures._apart(runs["sess"], runs["base"], "pxap", 360) if pair else set())
        assert len(among) <= 3 * pictures.AMONG
        few, labels = pictures._told(runs, "pxap", among)
        assert chosen(few, pair, better) == chosen(values, pair, better)
        assert set(labels.values()) == {"a"}


def test_tables_are_joined_to_larger_ones():
    found = list(joined(reading(rows(9))(["image_id"]), 7)) + list(joined(reading(rows(9), 10)(["image_id"]), 25))
    assert [len(table) for table in found] == [120, 30, 30, 30, 30]
    assert list(joined([], 7)) == []
