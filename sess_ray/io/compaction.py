"""Compaction: the files that a finished span has in a folder become one, so that outputs have few files.

In the joined file rows stand as in the manifest, whatever blocks they were explained in: so the same rows give the same
bytes. It is written whole, under a name that takes the place of the others (see `sess_ray.io.pieces`); then they go. A
span's file may be larger than memory: it is written by groups of rows, and of the others those groups are held that are
begun and not yet written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sess_ray.errors import RunError
from sess_ray.io.groups import read_groups
from sess_ray.io.pieces import by_folder, joined, piece_of
from sess_ray.io.spans import Spans
from sess_ray.io.store import ERRORS, MAPS, READERS, Store, whole

GROUP_ROWS = 1024  # of a joined file, about, which is what readers hold of it
GROUP_BYTES = 64 * 2**20  # of its maps, if they are that before
STEP = 64  # rows that are gathered at a time
SCHEMAS = {"maps": MAPS, "errors": ERRORS}


def compact(store: Store, spans: Spans, span: int, files: Sequence[str]) -> None:
    """Join the files that a finished span has in each folder.

    Parameters
    ----------
    store : Store
    spans : Spans
    span : int
    files : sequence of str
        All of its files that count.

    Raises
    ------
    FileNotFoundError
        If one of them is gone: another run has joined them.
    RunError
        If a file holds other rows than its name says, or the joined one cannot be stored. The others are there then.
    OSError
        If there is no room on this machine to write it. The others are there then.
    """
    for folder, names in by_folder(files).items():
        if len(names) > 1:
            _join(store, folder, sorted(names), spans, span)


def _join(store: Store, folder: str, names: Sequence[str], spans: Spans, span: int) -> None:
    together = joined([one for one in map(piece_of, names) if one])
    name = f"{folder}/{together.stem}.parquet"
    if not store.is_used([name]):  # it is there where a process has died that had begun to remove the others
        places = {image["image_id"]: number for number, (image, _) in enumerate(spans.images(span))}
        rows = together.maps if folder == "maps" else together.images
        with whole(store, name) as path, pq.ParquetWriter(path, SCHEMAS[folder]) as writer:
            for group in _groups(store, names, places, SCHEMAS[folder]):
                writer.write_table(group, row_group_size=group.num_rows)
                rows -= group.num_rows
            if rows:
                raise RunError(f"the names of {store.path(names[0])} and of others do not say what they hold")
    for one in names:
        store.remove(one)


def _groups(store: Store, names: Sequence[str], places: dict[str, int], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of files in the order of their images, in groups that end where an image ends."""
    with ThreadPoolExecutor(READERS) as pool:
        ids = list(pool.map(lambda name: list(read_groups(store, name, ["image_id"])), names))
    own = [
        np.array([places.get(row, len(places)) for row in group["image_id"].to_pylist()]) for of in ids for group in of
    ]
    gathered = _Gathered(store, names, [len(of) for of in ids], [len(group) for group in own])
    place = np.concatenate(own)
    order = np.argsort(place, kind="stable")
    ends = np.flatnonzero(np.diff(place[order], append=-1)) + 1  # of images
    rows: list[pa.Table] = []
    begin = size = 0
    while begin < len(order):
        end = int(ends[np.searchsorted(ends, min(begin + STEP, len(order)))])
        rows.append(gathered.take(order[begin:end], schema))
        begin, size = end, size + _map_bytes(rows[-1])
        if sum(table.num_rows for table in rows) >= GROUP_ROWS or size >= GROUP_BYTES or end == len(order):
            yield pa.concat_tables(rows).unify_dictionaries().combine_chunks()
            rows, size = [], 0


def _map_bytes(table: pa.Table) -> int:
    if "saliency" not in table.column_names:
        return 0
    return pc.sum(pc.binary_length(pc.struct_field(table["saliency"], "bytes"))).as_py() or 0


class _Gathered:
    """The rows of files by their numbers, each taken once; a row group is held from its first row to its last.

    Parameters
    ----------
    store : Store
    names : sequence of str
    groups : list of int
        How many each file has.
    rows : list of int
        How many each group has, in the order of the files.
    """

    def __init__(self, store: Store, names: Sequence[str], groups: list[int], rows: list[int]) -> None:
        self._files: list[Iterator[pa.Table]] = [read_groups(store, name) for name in names]
        self._file = np.repeat(np.arange(len(names)), groups)
        self._ends = np.cumsum(groups)
        self._next = self._ends - groups  # the group that each file gives next
        self._begins = np.concatenate([[0], np.cumsum(rows)])
        self._left = list(rows)
        self._tables: dict[int, pa.Table] = {}

    def take(self, numbers: np.ndarray, schema: pa.Schema) -> pa.Table:
        """Return rows; what older versions did not write is null."""
        own = np.searchsorted(self._begins, numbers, side="right") - 1
        groups, which, counts = np.unique(own, return_inverse=True, return_counts=True)
        tables = [self._group(group) for group in groups.tolist()]
        offsets = np.concatenate([[0], np.cumsum([table.num_rows for table in tables])])[:-1] - self._begins[groups]
        found = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")
        for group, count in zip(groups.tolist(), counts.tolist(), strict=True):
            self._left[group] -= count
            if not self._left[group]:
                del self._tables[group]
        return found.take(numbers + offsets[which])

    def _group(self, group: int) -> pa.Table:
        file = self._file[group]
        while group not in self._tables:
            self._tables[int(self._next[file])] = next(self._files[file])
            self._next[file] += 1
            if self._next[file] == self._ends[file]:
                self._files[file] = iter(())  # closes it
        return self._tables[group]
