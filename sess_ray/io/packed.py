"""Reading the images whose bytes, or paths, lie in the rows of Parquet files."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow.parquet as pq

from sess_ray.access import public, read_files
from sess_ray.errors import SessError
from sess_ray.io.columns import image_column
from sess_ray.io.manifests import absolute
from sess_ray.opening import is_chain, opened
from sess_ray.signing import file_of

BATCH_ROWS = 16  # read at a time


def packed_rows(file: str, names: Collection[str], had: int) -> Iterator[tuple[str, bytes | Exception]]:
    """Yield images in the file's order, the first `had` of them left out.

    Parameters
    ----------
    file : str
        Path or URL.
    names : collection of str
        ROW, or COLUMN/ROW where the column is not the one that is found by itself; others yield nothing.
    had : int

    Raises
    ------
    SessError
        If there is no such column.
    """
    wanted: dict[str | None, list[tuple[int, str]]] = {}
    for name in names:
        column, _, number = name.rpartition("/")
        if number.isdecimal() and str(int(number)) == number:
            wanted.setdefault(column or None, []).append((int(number), name))
    left = had
    for meant, rows in wanted.items():
        some = dict(sorted(rows)[left:])
        left -= len(rows) - len(some)
        if some:
            yield from _column_rows(file, meant, some)


def _column_rows(file: str, wanted: str | None, names: dict[int, str]) -> Iterator[tuple[str, bytes | Exception]]:
    with opened(file) as handle:
        parquet = pq.ParquetFile(handle)
        column = image_column(parquet.schema_arrow, wanted)
        if column is None:
            raise SessError(f"{public(file)} has no column of image bytes")
        first = 0
        for group in range(parquet.num_row_groups):
            last = first + parquet.metadata.row_group(group).num_rows
            some = {row: name for row, name in names.items() if first <= row < last}
            if some:
                yield from _group_rows(parquet, group, column, first, some, posixpath.dirname(file_of(file)))
            first = last


def _group_rows(
    file: pq.ParquetFile, group: int, column: str, first: int, names: dict[int, str], folder: str
) -> Iterator[tuple[str, bytes | Exception]]:
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column]):
        rows = [row for row in range(first, first + batch.num_rows) if row in names]
        cells = [batch[0][row - first].as_py() for row in rows]
        yield from zip((names[row] for row in rows), _contents(cells, folder), strict=True)
        first += batch.num_rows


def _contents(cells: list[Any], folder: str) -> list[bytes | Exception]:
    """Return what cells hold: bytes, else what lies where their paths say."""
    found: list[bytes | Exception] = []
    places: dict[str, dict[int, str]] = {}  # by file system
    for index, cell in enumerate(cells):
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        path = cell.get("path") if isinstance(cell, dict) else None
        if content is None and path:
            place = absolute(path, folder)
            kind = place if is_chain(place) else place.partition("://")[0] if "://" in place else ""
            places.setdefault(kind, {})[index] = place
        found.append(SessError("the row holds no image bytes, and no path") if content is None else content)
    for some in places.values():
        try:
            contents = read_files(list(some.values()))
        except Exception as error:
            contents = [error] * len(some)
        for index, content in zip(some, contents, strict=True):
            found[index] = content
    return found
