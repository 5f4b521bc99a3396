"""Rows on their way from one stage to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
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


def fetched(given: Any) -> Any:
    """Return what a task is given by itself, or by a reference to where Ray holds it."""
    import ray

    return ray.get(given) if isinstance(given, ray.ObjectRef) else given


def flat(values: np.ndarray) -> memoryview:
    """Return (...,) uint8 as a cell of bytes, which Arrow copies once; without a copy where they lie in order."""
    return values.reshape(-1).data


def cells(column: pa.ChunkedArray) -> list[np.ndarray | None]:
    """Return the cells of a column of `large_binary` where they lie, (n,) uint8 each, not to be written to.

    None where there is none. A scalar of Arrow's would be a copy.
    """
    found: list[np.ndarray | None] = []
    for chunk in column.chunks:
        if not len(chunk):
            continue
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        values = np.frombuffer(data or b"", np.uint8)
        valid = chunk.is_valid().to_pylist()
        found += [values[a:b] if known else None for a, b, known in zip(ends, ends[1:], valid, strict=False)]
    return found


def _bytes(value: Any) -> int:
    match value:
        case bytes() | memoryview():
            return len(value)
        case dict():
            return sum(map(_bytes, value.values()))
        case list():
            return sum(map(_bytes, value))
    return 0
