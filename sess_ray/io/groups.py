"""Row groups of an output's Parquet files, one at a time: a file may hold more than memory should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from sess_ray.access import patiently, persistent
from sess_ray.io.pieces import piece_of
from sess_ray.io.store import READERS, Store, parquet, those_of

IMAGES = 512  # whose maps, and files, are in memory


def read_groups(store: Store, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield a file's rows, a row group at a time, or those of some columns that it has."""

    def groups(had: int) -> Iterator[pa.Table]:
        with parquet(store, name) as file:
            known = those_of(store, name, file, columns)
            for group in range(had, file.num_row_groups):
                yield file.read_row_group(group, known)

    return persistent(groups)


def group_of(store: Store, name: str, row: int) -> tuple[pa.Table, int]:
    """Read the row group that has a row of a file.

    Returns
    -------
    pa.Table, int
        Its rows, and the number of the first of them in the file.
    """

    def read() -> tuple[pa.Table, int]:
        with parquet(store, name) as file:
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row < first + rows:
                    return file.read_row_group(group), first
                first += rows
        raise IndexError(f"{name} has {first} rows, and no row {row}")

    return patiently(read)


def read_rows(
    store: Store, name: str, first: int, count: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """Yield rows of a file that follow one another, those of each row group together, and the number of the first."""

    def parts(had: int) -> Iterator[tuple[int, pa.Table]]:
        with parquet(store, name) as file:
            known = those_of(store, name, file, columns)
            begin, number = 0, 0
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                low, high = max(begin, first), min(end, first + count)
                if low < high:
                    if number >= had:
                        table = file.read_row_group(group, known)
                        yield low, table.slice(low - begin, high - low)
                    number += 1
                begin = end

    return persistent(parts)


def read_images(
    store: Store, name: str, first: int, count: int, at_once: int = IMAGES
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Yield rows of a file of maps, by their images, some of these at a time; each is whole, wherever its rows lie."""
    left: Counter[str] = Counter()
    for _, table in read_rows(store, name, first, count, ["image_id"]):
        left.update(table["image_id"].to_pylist())
    waiting: dict[str, list[dict[str, Any]]] = {}
    for _, table in read_rows(store, name, first, count):
        for row in table.to_pylist():
            waiting.setdefault(row["image_id"], []).append(row)
        whole = [image_id for image_id, rows in waiting.items() if len(rows) == left[image_id]]
        for place in range(0, len(whole), at_once):
            yield {image_id: waiting.pop(image_id) for image_id in whole[place : place + at_once]}


def stream_tables(
    store: Store, names: Sequence[str], columns: list[str] | None = None, at_once: int = READERS
) -> Iterator[tuple[str, pa.Table]]:
    """Yield files and their rows, or those of some columns, in order; so many files are read, and held, at a time."""
    for first in range(0, len(names), at_once):
        some = names[first : first + at_once]
        yield from zip(some, store.read_tables(some, columns), strict=True)


def count_maps(store: Store, names: Sequence[str]) -> list[int]:
    """Return how many maps each of some files has, by its name if that says it, else by its metadata."""

    def count(name: str) -> int:
        said = piece_of(name)
        return patiently(_rows, store, name) if said is None else said.maps

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(count, names))


def _rows(store: Store, name: str) -> int:
    with parquet(store, name) as file:
        rows: int = file.metadata.num_rows
    return rows
