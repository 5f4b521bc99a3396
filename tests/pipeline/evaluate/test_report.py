"""Summaries of results, from tables written by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sess_ray.pipeline.evaluate import report
from sess_ray.pipeline.evaluate.judging import results_schema

METRICS = ["pointing_game", "max_box_acc", "deletion_rise"]


def results(rows, at_once=10):
    """Image, target, label, size and the three metrics, a tuple a row; as they are read."""
    names = ("image_id", "target", "label", "size", *METRICS)
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], results_schema(METRICS))
    return [lambda columns: (table.select(columns).slice(at, at_once) for at in range(0, len(table), at_once))]


BASE = results(
    [
        ("a", 1, "cat", "< 5 %", 1.0, [1.0, 0.0], 0.2),
        ("b", 1, "cat", "> 25 %", 0.0, [0.0, 1.0], 0.4),
        ("c", 2, "dog", "> 25 %", 1.0, [0.0, 1.0], None),
        ("d", 2, "dog", None, None, None, 0.9),
    ]
)
OTHER = results(
    [
        ("b", 1, "cat", "> 25 %", 1.0, [0.0, 1.0], 0.1),
        ("a", 1, "cat", "< 5 %", 1.0, [1.0, 0.0], 0.2),
        ("d", 2, "dog", None, None, None, None),
    ]
)


@pytest.fixture(scope="module")
def lines():
    found = report.report({"base": BASE, "other": OTHER}, METRICS, [("other", "base")])
    return {(line.run, line.base, line.group, line.value, line.metric): line.summary for line in found}


def test_means_are_those_of_the_definitions(lines):
    expected = {
        ("base", "", "all", "", "pointing_game"): (3, (0.5 + 1) / 2),  # classes first
        ("base", "", "all", "", "max_box_acc"): (3, 2 / 3),  # at the second threshold
        ("base", "", "all", "", "deletion_rise"): (3, 0.5),
        ("base", "", "size", "> 25 %", "pointing_game"): (2, 0.5),
        ("base", "", "class", "dog", "deletion_rise"): (1, 0.9),
        ("other", "", "all", "", "max_box_acc"): (2, 0.5),
    }
    for place, (n, mean) in expected.items():
        assert (lines[place].n, lines[place].mean) == (n, pytest.approx(mean)), place
    assert ("other", "", "class", "dog", "deletion_rise") not in lines


def test_differences_are_of_maps_that_both_have(lines):
    found = lines["other", "base", "all", "", "deletion_rise"]
    assert (found.n, found.mean) == (2, pytest.approx((0.2 + 0.1) / 2 - (0.2 + 0.4) / 2))
    assert lines["other", "base", "all", "", "pointing_game"].mean == pytest.approx(0.5)


def test_what_is_the_same_in_both_runs_makes_no_difference():
    found = report.report({"one": BASE, "same": BASE}, METRICS, [("same", "one")])
    differences = [line.summary for line in found if line.base]
    assert [(summary.mean, summary.low, summary.high) for summary in differences] == [(0, 0, 0)] * 3


def test_tables_hold_what_was_measured():
    found = report.report({"base": BASE, "other": OTHER}, METRICS, [("other", "base")])
    text = report.as_markdown(found, ["base", "other"], METRICS)
    assert text.count("## ") == 6
    assert "| run | n | pointing_game ↑" in " ".join(text.split())
    assert "deletion_rise ↓" in text
    [row] = [line for line in text.splitlines() if line.startswith("| other - base | 2 | -15.0")]
    assert row
    one = report.as_markdown(report.report({"base": BASE}, ["deletion_rise"]), ["base"], METRICS)
    assert "pointing_game" not in one
    assert "difference" not in one


def test_files_for_other_programs_hold_the_same():
    found = report.report({"base": BASE, "other": OTHER}, METRICS, [("other", "base")])
    table = report.as_csv(found).decode().splitlines()
    assert len(table) == 1 + len(found)
    assert table[1].startswith("base,,all,,pointing_game,3,0.75,")
    records = report.as_records(found)
    assert records[0].items() >= {"run": "base", "metric": "pointing_game", "n": 3, "mean": 0.75}.items()


def test_a_group_and_one_of_its_classes_are_a_pair_by_their_label():
    rows = [("a", -7, "cat", None, 1.0, None, 0.5), ("b", -7, "cat", None, 1.0, None, 0.1)]
    others = [
        ("a", 281, "cat", None, 0.0, None, 0.2),
        ("a", 3, "dog", None, 0.0, None, 0.9),
        ("b", 281, "cat", None, 0.0, None, 0.3),  # which of the two is it?
        ("b", 282, "cat", None, 0.0, None, 0.4),
    ]
    found = report.report({"group": results(rows), "best": results(others)}, METRICS, [("group", "best")])
    [difference] = [line.summary for line in found if line.base and line.group == "all" and line.metric == METRICS[2]]
    assert (difference.n, difference.mean) == (1, pytest.approx(0.3))
