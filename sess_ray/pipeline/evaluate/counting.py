"""From the rows of results/ to summaries: over all maps of a run, by size and by class.

Files are summed up in lanes, each by one call, and the sums of lanes are merged by another: the driver sees means and
intervals alone. What grows is what sums of classes take: of curves, a thousand classes have gigabytes. So only as many
classes are summed up at once as `CLASS_BYTES` allow; for the others the rows are read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.metrics.bootstrap import REPLICATES
from sess_ray.metrics.metric import Summary
from sess_ray.pipeline.cluster.calls import Calls, got
from sess_ray.pipeline.evaluate.results import SIZES, Chunks, joined
from sess_ray.pipeline.evaluate.sums import NO_LABEL, Grouping, Sums, Totals, plus

CLASS_BYTES = 2**28  # of sums at a time, of a call
LANES_BYTES = 2**31  # of sums of all lanes, which wait to be merged
VALUES_BYTES = 2**25  # of a table that is summed up: the larger, the more rows of a class are together


@dataclass(frozen=True)
class Replicates:
    """A metric over maps in each replicate.

    Attributes
    ----------
    n : int
        Number of maps.
    values : ndarray, (1 + replicates,)
        The first one is that of the maps themselves.
    """

    n: int
    values: np.ndarray

    def summary(self) -> Summary:
        """Return the mean and its interval."""
        return Summary.of(self.n, self.values)


NOTHING = Replicates(0, np.full(1 + REPLICATES, np.nan))


@dataclass(frozen=True)
class Counted:
    """What is known of a run's maps together.

    Attributes
    ----------
    rows : int
        How many maps that are.
    classes : sequence of str
        Their labels, sorted.
    whole : dict of str to Replicates
        Each metric over all maps that have it.
    by_size, by_class : dict of str to dict of str to Summary
        Each metric by size and by class of target.
    """

    rows: int
    classes: Sequence[str]
    whole: dict[str, Replicates]
    by_size: dict[str, dict[str, Summary]]
    by_class: dict[str, dict[str, Summary]]


@dataclass
class Merged:
    """What a run's lanes have summed up of some classes.

    Attributes
    ----------
    whole : dict of str to Totals
    by_size : dict of str to list of (Totals or None)
    by_class : dict of str to dict of str to Summary
    """

    whole: dict[str, Totals | None]
    by_size: dict[str, list[Totals | None]]
    by_class: dict[str, dict[str, Summary]]


def counted(groups: Sequence[Chunks], metrics: Sequence[str], call: Calls) -> Counted:
    """Count all rows of a run.

    Parameters
    ----------
    groups : sequence of callables
        Each reads some of its results.
    metrics : sequence of str
        Columns, of the suite.
    call : callable
        Calls functions.
    """
    seen = [got(one) for one in [call(_labels, group) for group in groups]]
    classes = sorted(set().union(*(labels for _, labels in seen)))
    lots = list(summed([(group, ()) for group in groups], Grouping(metrics, classes), call))
    by_class = {name: {label: own for lot in lots for label, own in lot.by_class[name].items()} for name in metrics}
    whole = {name: plus(lot.whole[name] for lot in lots) for name in metrics}
    by_size: dict[str, dict[str, Summary]] = {name: {} for name in metrics}
    makes = Grouping(metrics, None).makes
    for name in metrics:
        for place, size in enumerate(SIZES):
            if totals := plus(lot.by_size[name][place] for lot in lots):
                by_size[name][size] = totals.summary(makes[name])
    return Counted(sum(rows for rows, _ in seen), classes, replicates(whole, metrics), by_size, by_class)


def _labels(group: Chunks) -> tuple[int, set[str]]:
    """Return the number of rows, and their labels."""
    rows, found = 0, set()
    for table in group(["label"]):
        rows += len(table)
        found.update(table["label"].fill_null(NO_LABEL).unique().to_pylist())
    return rows, found


def replicates(whole: dict[str, Totals | None], metrics: Sequence[str]) -> dict[str, Replicates]:
    """Return metrics in each replicate."""
    makes = Grouping(metrics, None).makes
    return {
        name: NOTHING if (own := whole[name]) is None else Replicates(own.n, own.replicates(makes[name]))
        for name in metrics
    }


Lane = Sequence[tuple[Chunks, Sequence[Any]]]  # what reads rows, and references to which of them count: `counts`


def summed(groups: Lane, grouping: Grouping, call: Calls) -> Iterator[Merged]:
    """Yield what is summed up of some of the grouping's classes, and of the next ones, until all are."""
    waiting: deque[tuple[Grouping, list[Any]]] = deque()
    merged = []

    def merge() -> None:
        own, parts = waiting.popleft()
        call.wait(parts)
        merged.append(call(_merged, own, parts))

    for own in _lots(grouping):
        lanes = max(1, min(len(groups), call.lanes, LANES_BYTES // _bytes(own)))
        cuts = [len(groups) * lane // lanes for lane in range(lanes + 1)]
        waiting.append((own, [call(_summed, groups[a:b], own) for a, b in pairwise(cuts)]))
        if len(waiting) > call.ahead:
            merge()
    while waiting:
        merge()
    yield from map(got, merged)


def _lots(grouping: Grouping) -> Iterator[Grouping]:
    """Cut a grouping by its classes."""
    if grouping.classes is None:
        yield grouping
        return
    one, two = (_bytes(replace(grouping, classes=[NO_LABEL] * count)) for count in (1, 2))
    room = max(1, (CLASS_BYTES - one) // (two - one) + 1)
    for first in range(0, len(grouping.classes), room):
        yield Grouping(grouping.metrics, grouping.classes[first : first + room], grouping.whole)


def _bytes(grouping: Grouping) -> int:
    """Return how many bytes sums take at most."""
    return (
        8
        * (1 + REPLICATES)
        * sum((2 * grouping.makes[name].numbers + 1) * sum(grouping.groups(name).values()) for name in grouping.metrics)
    )


def _summed(lane: Lane, grouping: Grouping) -> Sums:
    sums = Sums(grouping)
    numbers = sum(metric.numbers for metric in grouping.makes.values())
    for group, counts in lane:
        tables = group(grouping.columns())
        own = map(grouping.own, counting(tables, counts) if counts else tables)
        for table in joined(own, VALUES_BYTES // 8 // numbers):
            sums.add(table)
    return sums


def counting(tables: Iterator[pa.Table], counts: Sequence[Any]) -> Iterator[pa.Table]:
    """Yield tables with a column ``counts``: a bit for each metric for which a row counts.

    Parameters
    ----------
    tables : iterator of pa.Table
    counts : sequence
        References to pairs of arrays, the numbers of rows and their bits; of other rows these are 0.
    """
    places, bits = (np.concatenate(own) for own in zip(*map(got, counts), strict=True))
    whole = np.zeros(1 + places.max(initial=-1), np.uint32)
    whole[places] = bits
    first = 0
    for table in tables:
        own = whole[first : first + len(table)]
        first += len(table)
        yield table.append_column("counts", pa.array(np.pad(own, (0, len(table) - len(own)))))


def _merged(grouping: Grouping, parts: Sequence[Any]) -> Merged:
    sums = Sums(grouping)
    for part in parts:
        sums.merge(got(part))
    found = Merged({}, {}, {})
    for name, metric in grouping.makes.items():
        both = metric.per_class
        kind, classes = ("both" if both else "size"), len(grouping.classes or [NO_LABEL])
        places = np.arange(grouping.groups(name)[kind]).reshape(classes if both else 1, grouping.sizes)
        found.whole[name] = sums.totals(name, kind, places)
        if grouping.whole:
            continue
        found.by_size[name] = [sums.totals(name, kind, places[:, size, None]) for size in range(len(SIZES))]
        own = places if both else np.arange(classes)[:, None]
        found.by_class[name] = {}
        for place, label in enumerate(grouping.classes or ()):
            summary = sums.summary(name, "both" if both else "class", own[place])
            if summary and label != NO_LABEL:
                found.by_class[name][label] = summary
    return found
