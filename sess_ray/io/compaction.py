"""Compaction: the files that a finished span has in a folder become one, so that outputs have few files.

In the joined file rows stand as in the manifest, those of a tar shard by their ids, whatever blocks they were explained
in: so the same rows give the same bytes. It is written whole, under a name that takes the place of the others (see
`sess_ray.io.pieces`); then they go. What would be larger than a file should be becomes several, volumes and a last one,
cut where an image ends. A span's files may be larger than memory: they are written by groups of rows, and of the others
those groups are held that are begun and not yet written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sess_ray.errors import RunError
from sess_ray.io.cuts import Cut
from sess_ray.io.groups import read_groups
from sess_ray.io.pieces import Piece, by_folder, is_scattered, joined, piece, piece_of
from sess_ray.io.store import ERRORS, MAPS, READERS, Store, whole

SCHEMAS = {"maps": MAPS, "errors": ERRORS}
Numbers = dict[str, list[int]]  # the rows of the span that images are, by their ids


class Limits(NamedTuple):
    """How large what is written may become, about.

    Attributes
    ----------
    group_rows : int
        Rows of a row group, which is what readers hold of a file.
    group_bytes : int
        Bytes of its maps; it ends with what comes first.
    file_bytes : int
        Bytes of a file's maps.
    step : int
        Rows that are gathered at a time.
    """

    group_rows: int = 1024
    group_bytes: int = 64 * 2**20
    file_bytes: int = 256 * 2**20
    step: int = 64


USUAL = Limits()


def compact(store: Store, cut: Cut, span: int, files: Sequence[str], limits: Limits = USUAL) -> None:
    """Join the files that a finished span has in each folder.

    Parameters
    ----------
    store : Store
    cut : Cut
    span : int
    files : sequence of str
        All of its files that count.
    limits : Limits

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
        if is_scattered(names):
            _join(store, folder, sorted(names), cut, span, limits)


def _join(store: Store, folder: str, names: Sequence[str], cut: Cut, span: int, limits: Limits) -> None:
    together = joined([one for one in map(piece_of, names) if one])
    if not store.is_used([_name(folder, together)]):  # it is there where a process has died that had begun to remove
        ids = _ids(store, names)
        numbers = cut.numbers(span, chain.from_iterable(chain.from_iterable(ids)))
        groups = _groups(store, names, ids, list(numbers), SCHEMAS[folder], limits)
        volumes: list[str] = []
        try:
            volumes.extend(_written(store, folder, together, groups, numbers, limits.file_bytes))
        except Exception:
            for name in volumes:  # nobody sees them, but they take room
                with suppress(RunError):
                    store.remove(name)
            raise
    for one in names:
        store.remove(one)


def _name(folder: str, one: Piece) -> str:
    return f"{folder}/{one.stem}.parquet"


def _written(
    store: Store, folder: str, together: Piece, groups: Iterator[pa.Table], numbers: Numbers, most: int
) -> Iterator[str]:
    """Write groups of rows into one file or, where it would have more bytes, several; yield the name of each.

    The last one has no number: it makes the others count.
    """
    group, done, rows = next(groups, None), list[Piece](), 0
    while group is not None:
        size, ids, maps = 0, dict[str, None](), 0
        with whole(store, folder) as begun, pq.ParquetWriter(begun.path, SCHEMAS[folder]) as writer:
            while group is not None and (not size or size + _map_bytes(group) <= most):
                writer.write_table(group, row_group_size=group.num_rows)
                size, maps = size + _map_bytes(group), maps + group.num_rows
                ids |= dict.fromkeys(group["image_id"].to_pylist())
                group = next(groups, None)
            rows += maps
            one = together
            if done or group is not None:
                own = [number for name in ids for number in numbers.get(name, ())]
                volume = len(done) + 1 if group is not None else 0
                one = piece(together.span, own, len(ids), maps, together.generation, volume, together.whole)
            done.append(one)
            if group is None and (rows != (together.maps or together.images) or joined(done)[1:5] != together[1:5]):
                raise RunError(f"the names of files in {store.path(folder)} do not say what they hold")
            begun.name = _name(folder, one)
        yield begun.name


def _ids(store: Store, names: Sequence[str]) -> list[list[list[str]]]:
    """Return the ids in files, of each by its row groups."""

    def read(name: str) -> list[list[str]]:
        return [group["image_id"].to_pylist() for group in read_groups(store, name, ["image_id"])]

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, names))


def _groups(
    store: Store,
    names: Sequence[str],
    ids: list[list[list[str]]],
    ordered: Sequence[str],
    schema: pa.Schema,
    limits: Limits,
) -> Iterator[pa.Table]:
    """Yield the rows of files in the order of their images, in groups that end where an image ends."""
    places = {name: number for number, name in enumerate(ordered)}
    own = [np.array([places.get(row, len(places)) for row in group]) for of in ids for group in of]
    gathered = _Gathered(store, names, [len(of) for of in ids], [len(group) for group in own])
    place = np.concatenate(own)
    order = np.argsort(place, kind="stable")
    ends = np.flatnonzero(np.diff(place[order], append=-1)) + 1  # of images
    rows: list[pa.Table] = []
    begin = size = 0
    while begin < len(order):
        end = int(ends[np.searchsorted(ends, min(begin + limits.step, len(order)))])
        rows.append(gathered.take(order[begin:end], schema))
        begin, size = end, size + _map_bytes(rows[-1])
        count = sum(table.num_rows for table in rows)
        if count >= limits.group_rows or size >= limits.group_bytes or end == len(order):
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
