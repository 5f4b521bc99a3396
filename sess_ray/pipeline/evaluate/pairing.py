"""Which maps of two runs are of the same image and target, for any number of maps.

Rows travel in partitions, by a checksum of their image's id: those of an image are in one, of both runs. There are as
many as keep each to some `PARTITION_ROWS` rows; where one is not enough, they are spilled to a disk. What is
known of all rows then is a number for each.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from sess_ray.metrics.metric import Metric
from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.evaluate.counting import Counted, Rows
from sess_ray.pipeline.evaluate.results import Chunks

PARTITION_ROWS = 2**20
# What makes maps of two runs a pair: by label, that of a group is compared with that of one class in the other run.
SAME = ("target", "label")


def compared(
    runs: tuple[Chunks, Chunks], found: tuple[Counted, Counted], metrics: Sequence[str]
) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """Count, of each of two runs, the maps for which both have a value.

    Parameters
    ----------
    runs : (callable, callable)
        Read their results.
    found : (Counted, Counted)
        What is known of each.
    metrics : sequence of str
    """
    counts = [np.zeros_like(own.known) for own in found]  # as `Counted.known`: for which metrics a row counts
    tables = [_numbered(chunks(["image_id", *SAME])) for chunks in runs]
    for both in partitions(tables, sum(len(own.known) for own in found)):
        for places in matched(both, SAME):
            rows = [table["number"].to_numpy()[own] for table, own in zip(both, places, strict=True)]
            shared = found[0].known[rows[0]] & found[1].known[rows[1]]
            for own, numbers in zip(counts, rows, strict=True):
                own[numbers] = shared
    ours, theirs = (_sums(*one, metrics) for one in zip(runs, found, counts, strict=True))
    return ours, theirs


def _numbered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    first = 0
    for table in tables:
        yield table.append_column("number", pa.array(np.arange(first, first + len(table))))
        first += len(table)


def _sums(chunks: Chunks, found: Counted, counts: np.ndarray, metrics: Sequence[str]) -> dict[str, Metric]:
    if np.array_equal(counts, found.known):
        return found.whole
    sums = {name: SUITE[name].make() for name in metrics}
    first = 0
    for table in chunks(["image_id", "label", *metrics]):
        own = counts[first : first + len(table)]
        first += len(table)
        if own.any():
            part = Rows(table, metrics)
            for bit, name in enumerate(metrics):
                places = np.flatnonzero(own >> np.uint32(bit) & 1)
                if len(places):
                    part.add(sums[name], name, places)
    return sums


def partitions(tables: Sequence[Iterable[pa.Table]], rows: int) -> Iterator[list[pa.Table]]:
    """Yield rows of several runs, those of an image together.

    Parameters
    ----------
    tables : sequence of iterables of pa.Table
        Those of each run, with a column ``image_id``.
    rows : int
        How many there are, about.
    """
    count = -(-rows // PARTITION_ROWS)
    if count <= 1:
        whole = [list(own) for own in tables]
        if all(whole):
            yield [pa.concat_tables(own) for own in whole]
        return
    with TemporaryDirectory() as folder:
        for run, own in enumerate(tables):
            _spill(own, [os.path.join(folder, f"{run}-{number}.arrow") for number in range(count)])
        for number in range(count):
            paths = [os.path.join(folder, f"{run}-{number}.arrow") for run in range(len(tables))]
            if all(map(os.path.exists, paths)):
                yield [_read(path) for path in paths]
            for path in filter(os.path.exists, paths):
                os.unlink(path)


def _read(path: str) -> pa.Table:
    with pa.OSFile(path) as file:
        return pa.ipc.open_stream(file).read_all()


def _spill(tables: Iterable[pa.Table], paths: Sequence[str]) -> None:
    with ExitStack() as files:
        writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        for table in tables:
            sums = (zlib.crc32(image_id.encode()) % len(paths) for image_id in table["image_id"].to_pylist())
            own = np.fromiter(sums, np.int64, len(table))
            order = np.argsort(own, kind="stable")
            ends = np.searchsorted(own[order], np.arange(len(paths) + 1))
            for number, (start, end) in enumerate(pairwise(ends.tolist())):
                if start < end:
                    if number not in writers:
                        writer = pa.ipc.new_stream(paths[number], table.schema)
                        writers[number] = files.enter_context(writer)
                    writers[number].write_table(table.take(order[start:end]))


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
        shared, first, second = np.intersect1d(one, other, assume_unique=True, return_indices=True)
        yield left[0][ours[first]], left[1][theirs[second]]
        left = [own[~np.isin(key, shared)] for own, key in zip(left, keys, strict=True)]


def _codes(columns: Sequence[pa.ChunkedArray]) -> list[np.ndarray]:
    """Return numbers for values, the same for the same in all columns, (rows,) int64 each."""
    whole = pa.concat_arrays([chunk for column in columns for chunk in column.chunks])
    codes = whole.dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    return np.split(codes, np.cumsum([len(column) for column in columns])[:-1])


def _single(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys that come once, and where."""
    values, places, times = np.unique(keys, return_index=True, return_counts=True)
    return values[times == 1], places[times == 1]
