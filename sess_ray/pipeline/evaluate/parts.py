"""What an evaluation knows of maps before any is read: a line for each file of a run, or for a part of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sess_ray.io.groups import count_maps, read_rows, stream_tables
from sess_ray.io.moved import Moved
from sess_ray.io.store import Store

PARTS = pa.schema(
    [
        ("run", pa.string()),
        ("file", pa.string()),  # of maps, in the run's store
        ("first", pa.int64()),  # number of a row there
        ("rows", pa.int64()),
    ]
)
PART_ROWS = 4096  # maps that a task reads
MOST_BLOCKS = 4096  # each takes the driver a millisecond before the first map is read


class Part(NamedTuple):
    """Rows of a file of maps: a row of `PARTS`."""

    run: str
    file: str
    first: int
    rows: int


@dataclass(frozen=True)
class Selection:
    """The maps that an evaluation is about, as places.

    Attributes
    ----------
    runs : dict of str to Store
    files : dict of str to list of str
        All files of maps of each run.
    parts : list of Part
        Those that count, a file each, in order.
    maps : int
        How many maps that are.
    moved : Moved or None
        Where the images are now: maps of others do not count.
    """

    runs: Mapping[str, Store]
    files: Mapping[str, Sequence[str]]
    parts: Sequence[Part]
    maps: int
    moved: Moved | None

    @cached_property
    def blocks(self) -> list[pa.Table]:
        """Rows of `PARTS`: each a task's, all of one run."""
        rows = PART_ROWS if len(self.parts) > MOST_BLOCKS else 1
        found: list[list[Part]] = []
        size = 0
        for part in self.parts:
            for first in range(part.first, part.first + part.rows, PART_ROWS):
                some = part._replace(first=first, rows=min(PART_ROWS, part.first + part.rows - first))
                if not found or size + some.rows > rows or found[-1][0].run != some.run:
                    found.append([])
                    size = 0
                found[-1].append(some)
                size += some.rows
        return [pa.table(list(map(list, zip(*own, strict=True))), schema=PARTS) for own in found]

    def stream(self, columns: Sequence[str]) -> Iterator[tuple[str, str, pa.Table]]:
        """Yield run, file and its rows that count, with their `number` in the file, ``image_id`` and other columns."""
        for run, parts in groupby(self.parts, attrgetter("run")):
            own = list(parts)
            names = [part.file for part in own]
            stored = stream_tables(self.runs[run], names, ["image_id", *columns])
            for part, (name, table) in zip(own, stored, strict=True):
                yield run, name, rows_that_count(part.first, table.slice(part.first, part.rows), self.moved)

    def unplaced(self) -> Iterator[tuple[str, str, int]]:
        """Yield run, image_id and target of all maps whose image is not among those that have moved."""
        for run, names in self.files.items() if self.moved else ():
            for _, table in stream_tables(self.runs[run], names, ["image_id", "target"]):
                assert self.moved
                ids = table["image_id"].to_pylist()
                for uri, image_id, target in zip(self.moved.find(ids), ids, table["target"].to_pylist(), strict=True):
                    if uri is None:
                        yield run, image_id, target


def select_maps(
    runs: Mapping[str, Store], files: Mapping[str, Sequence[str]], limit: int | None, moved: Moved | None
) -> Selection:
    """List the maps of runs, the first `limit` of each whose image is there."""
    parts: list[Part] = []
    maps = 0
    for run, store in runs.items():
        for part, count in _parts(run, store, files[run], limit, moved):
            if count:
                parts.append(part)
                maps += count
    return Selection(runs, files, parts, maps, moved)


def _parts(
    run: str, store: Store, names: Sequence[str], limit: int | None, moved: Moved | None
) -> Iterator[tuple[Part, int]]:
    """Yield for each file the rows of which the last one counts, and how many of them do."""
    left = limit
    if moved is None:
        for name, rows in zip(names, count_maps(store, names), strict=True):
            count = rows if left is None else min(rows, left)
            yield Part(run, name, 0, count), count
            left = None if left is None else left - count
        return
    for name, table in stream_tables(store, names, ["image_id"]):
        uris = moved.find(table["image_id"].to_pylist())
        there = [number for number, uri in enumerate(uris) if uri is not None][:left]
        yield Part(run, name, 0, there[-1] + 1 if there else 0), len(there)
        left = None if left is None else left - len(there)


def rows_that_count(first: int, table: pa.Table, moved: Moved | None) -> pa.Table:
    """Return rows of a file with their numbers there, and where their images are now; without those that have none.

    Parameters
    ----------
    first : int
        Number of the first row.
    table : pa.Table
    moved : Moved or None
    """
    numbered = table.append_column("number", pa.array(np.arange(first, first + len(table)), pa.int64()))
    if moved is None:
        return numbered
    uris = pa.array(moved.find(table["image_id"].to_pylist()), pa.string())
    if "uri" in table.column_names:
        numbered = numbered.set_column(numbered.column_names.index("uri"), "uri", uris)
    return numbered.filter(uris.is_valid())


def read_part(part: Mapping[str, Any], store: Store, moved: Moved | None) -> Iterator[pa.Table]:
    """Yield the rows of a part that count, all columns, those of a row group together."""
    for first, table in read_rows(store, part["file"], part["first"], part["rows"]):
        yield rows_that_count(first, table, moved)
