"""Which maps of two runs are of the same image and target, for any number of maps.

Rows travel in partitions, by a checksum of their image's id: those of an image are in one, of both runs. There are as
many as keep each to some `PARTITION_ROWS` rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.pipeline.cluster.calls import Calls, got
from sess_ray.pipeline.evaluate.counting import NOTHING, Counted, Replicates, replicates, summed
from sess_ray.pipeline.evaluate.results import Chunks
from sess_ray.pipeline.evaluate.sums import Grouping, plus

PARTITION_ROWS = 2**20
# What makes maps of two runs a pair: by label, that of a group is compared with that of one class in the other run.
SAME = ("target", "label")
Runs = tuple[Sequence[Chunks], Sequence[Chunks]]
# References to the rows of a partition: of each run, from each of its groups of files.
Partition = tuple[list[Any], list[Any]]


def compared(
    runs: Runs, found: tuple[Counted, Counted], metrics: Sequence[str], call: Calls
) -> tuple[dict[str, Replicates], dict[str, Replicates]]:
    """Count, of each of two runs, the maps for which both have a value.

    Parameters
    ----------
    runs : (sequence of callables, sequence of callables)
        Read their results.
    found : (Counted, Counted)
        What is known of each.
    metrics : sequence of str
    call : callable
        Calls functions.
    """
    if not all(runs):
        nothing = dict.fromkeys(metrics, NOTHING)
        return nothing, nothing
    groups = sum(map(len, runs))
    parts = partitions(runs, partial(_keys, metrics), sum(own.rows for own in found), call)
    shared = [call.split(1 + groups, _shared, part) for part in parts]
    call.wait([own for counts in shared for own in counts])
    del parts
    same = [all(whole) for whole in zip(*(got(counts[0]) for counts in shared), strict=True)]
    ours, theirs = (
        own.whole if whole else _counted(run, [counts[first : first + len(run)] for counts in shared], own, call)
        for run, first, own, whole in zip(runs, (1, 1 + len(runs[0])), found, same, strict=True)
    )
    return ours, theirs


def _keys(metrics: Sequence[str], group: Chunks) -> Iterator[pa.Table]:
    """Yield of each row its image, what makes a pair, a bit for each metric that it has, and its number."""
    first = 0
    for table in group(["image_id", *SAME, *metrics]):
        bits = np.zeros(len(table), np.uint32)
        for bit, name in enumerate(metrics):
            bits |= table[name].is_valid().to_numpy().astype(np.uint32) << np.uint32(bit)
        known = table.select(["image_id", *SAME]).append_column("bits", pa.array(bits))
        yield known.append_column("number", pa.array(np.arange(first, first + len(table))))
        first += len(table)


def _shared(part: Partition) -> list[Any]:
    """Return for which metrics the rows of a partition count.

    Returns
    -------
    list
        First, for each run, whether its rows count for all metrics that they have; then, for each group of files of
        each run, the numbers of its rows here, and their bits.
    """
    both = gathered(part)
    bits = [table["bits"].to_numpy() for table in both]
    counts = [np.zeros_like(own) for own in bits]
    for places in matched(both, SAME):
        shared = bits[0][places[0]] & bits[1][places[1]]
        for own, rows in zip(counts, places, strict=True):
            own[rows] = shared
    found: list[Any] = [[np.array_equal(*own) for own in zip(counts, bits, strict=True)]]
    for table, own, tables in zip(both, counts, part, strict=True):
        ends = np.cumsum([0, *(len(got(one)) for one in tables)]).tolist()
        numbers = table["number"].to_numpy()
        found += [(numbers[a:b], own[a:b]) for a, b in pairwise(ends)]
    return found


def _counted(
    run: Sequence[Chunks], counts: Sequence[Sequence[Any]], found: Counted, call: Calls
) -> dict[str, Replicates]:
    """Count rows of a run, those that `_shared` has found for each of its groups in each partition."""
    metrics = list(found.whole)
    by_class = any(metric.per_class for metric in Grouping(metrics, None).makes.values())
    grouping = Grouping(metrics, found.classes if by_class else None, whole=True)
    lots = list(summed(list(zip(run, zip(*counts, strict=True), strict=True)), grouping, call))
    return replicates({name: plus(lot.whole[name] for lot in lots) for name in metrics}, metrics)


def partitions(runs: Runs, read: Callable[[Chunks], Iterator[pa.Table]], rows: int, call: Calls) -> list[Partition]:
    """Return references to the rows of two runs, those of an image together.

    Parameters
    ----------
    runs : (sequence of callables, sequence of callables)
        Read their results.
    read : callable
        Yields of those that one of them reads what is wanted, with a column ``image_id``.
    rows : int
        How many there are, about.
    call : callable
        Calls functions.
    """
    count = max(1, -(-rows // PARTITION_ROWS))
    spread = [[call.split(count, _spread, count, read, group) for group in run] for run in runs]
    call.wait([part for run in spread for parts in run for part in parts])
    ours, theirs = ([[parts[number] for parts in run] for number in range(count)] for run in spread)
    return list(zip(ours, theirs, strict=True))


def _spread(count: int, read: Callable[[Chunks], Iterator[pa.Table]], group: Chunks) -> list[pa.Table]:
    found: list[list[pa.Table]] = [[] for _ in range(count)]
    for table in read(group):
        if count == 1:
            found[0].append(table)
            continue
        own = np.array([zlib.crc32(image_id.encode()) % count for image_id in table["image_id"].to_pylist()])
        order = np.argsort(own, kind="stable")
        ends = np.searchsorted(own[order], np.arange(count + 1)).tolist()
        for number, (start, end) in enumerate(pairwise(ends)):
            found[number].append(table.take(order[start:end]))
    return [pa.concat_tables(tables).combine_chunks() for tables in found]


def gathered(part: Partition) -> list[pa.Table]:
    """Return the rows of a partition, those of each run in a table."""
    return [pa.concat_tables(map(got, tables)) for tables in part]


def matched(both: Sequence[pa.Table], same: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the places of rows of two tables that are pairs, by each column in turn of what is not paired yet.

    Rows are a pair where they are of one image and have the same in the column, and no other row of their table has.
    """
    images = _codes([table["image_id"] for table in both])
    left = [np.arange(len(table)) for table in both]
    for name in same:
        values = _codes([table[name] for table in both])
        many = 1 + max((int(own.max(initial=0)) for own in values), default=0)
        keys = [image[own] * many + value[own] for image, value, own in zip(images, values, left, strict=True)]
        (one, ours), (other, theirs) = map(_single, keys)
        _, first, second = np.intersect1d(one, other, assume_unique=True, return_indices=True)
        pairs = ours[first], theirs[second]
        yield left[0][pairs[0]], left[1][pairs[1]]
        left = [np.delete(own, paired) for own, paired in zip(left, pairs, strict=True)]


def _codes(columns: Sequence[pa.ChunkedArray]) -> list[np.ndarray]:
    """Return numbers for values, the same for the same in all columns, (rows,) int64 each."""
    whole = pa.concat_arrays([chunk for column in columns for chunk in column.chunks])
    codes = whole.dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    return np.split(codes, np.cumsum([len(column) for column in columns])[:-1])


def _single(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys that come once, and where."""
    values, places, times = np.unique(keys, return_index=True, return_counts=True)
    return values[times == 1], places[times == 1]
