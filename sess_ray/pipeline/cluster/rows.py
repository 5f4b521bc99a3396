"""Rows on their way from one stage to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
# Ray serializes each table of a block by itself, column by column, in Python: with a table a row, a millisecond a row.
TABLE_BYTES = 4 * 2**20


def tables(rows: Iterable[Row], schema: pa.Schema) -> Iterator[pa.Table]:
    """Join rows to tables of some megabytes."""
    joined: list[Row] = []
    size = 0
    for row in rows:
        joined.append(row)
        size += _bytes(row)
        if size >= TABLE_BYTES:
            yield pa.Table.from_pylist(joined, schema)
            joined, size = [], 0
    if joined:
        yield pa.Table.from_pylist(joined, schema)


def _bytes(value: Any) -> int:
    match value:
        case bytes():
            return len(value)
        case dict():
            return sum(map(_bytes, value.values()))
        case list():
            return sum(map(_bytes, value))
    return 0
