"""Which maps a gallery shows of runs of any size: some of them are held, all others pass by."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.io.groups import stream_tables
from sess_ray.io.store import Store
from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.evaluate.results import Chunks

KNOWN = ("image_id", "uri", "target", "target_name", "target_classes", "score", "predicted")  # columns that are read
Key = tuple[str, int]  # image_id, target
Row = dict[str, Any]


def first_rows(runs: Sequence[Store], files: Sequence[Sequence[str]], count: int) -> tuple[list[Row], list[int]]:
    """Return the first rows of some runs, by image and target, and how many maps each run has.

    Parameters
    ----------
    runs : sequence of Store
    files : sequence of sequences of str
        Those of maps of each run.
    count : int
        How many rows; a quarter more are held.

    Returns
    -------
    list of dict
        Rows of `KNOWN`, with ``places``: for each run (file, row in it) or None.
    list of int
    """
    found: dict[Key, Row] = {}
    last: list[str] = []  # the image behind which no row is among the first

    def there(table: pa.Table) -> pa.Array:
        return pc.less_equal(table["image_id"], last[0]) if last else None

    def cut() -> None:
        if len(found) > count + count // 4:
            order = sorted(found)
            for key in order[count:]:
                del found[key]
            last[:] = [order[count - 1][0]]

    maps = _gather(runs, files, found, there, cut)
    return [found[key] for key in sorted(found)[:count]], maps


def rows_of(
    runs: Sequence[Store], files: Sequence[Sequence[str]], keys: Collection[Key]
) -> tuple[list[Row], list[int]]:
    """Return rows of some runs, by their keys, and how many maps each run has, as `first_rows` does."""
    found: dict[Key, Row] = {}
    wanted = set(keys)

    def there(table: pa.Table) -> pa.Array:
        both = zip(table["image_id"].to_pylist(), table["target"].to_pylist(), strict=True)
        return pa.array([key in wanted for key in both])

    maps = _gather(runs, files, found, there, lambda: None)
    return [found[key] for key in sorted(found)], maps


def _gather(
    runs: Sequence[Store],
    files: Sequence[Sequence[str]],
    found: dict[Key, Row],
    there: Callable[[pa.Table], pa.Array | None],
    after: Callable[[], None],
) -> list[int]:
    """Take in rows of all files that are `there`, calling `after` behind each; return how many each run has."""
    maps = []
    for place, (run, names) in enumerate(zip(runs, files, strict=True)):
        maps.append(0)
        for file, table in stream_tables(run, names, list(KNOWN)):
            maps[-1] += len(table)
            numbered = table.append_column("line", pa.array(range(len(table)), pa.int64()))
            chosen = there(table)
            for row in (numbered if chosen is None else numbered.filter(chosen)).to_pylist():
                line, key = row.pop("line"), (row["image_id"], row["target"])
                if row["predicted"] in (row.get("target_classes") or ()):
                    row["predicted"] = row["target"]  # a class of the group is right
                own = found.setdefault(key, row)
                own.setdefault("places", [None] * len(runs))[place] = (file, line)
            after()
    return maps


def worst_keys(metric: str, chunks: Chunks, count: int) -> list[Key]:
    """Return the keys of the worst maps of a run by a metric; those without a value are not among them."""
    sign = 1 if SUITE[metric].make().better == "higher" else -1

    def valued() -> Iterator[tuple[float, Key]]:
        for table in chunks(["image_id", "target", metric]):
            own = table.filter(table[metric].is_valid())
            columns = (own[name].to_pylist() for name in (metric, "image_id", "target"))
            yield from ((sign * value, (image_id, target)) for value, image_id, target in zip(*columns, strict=True))

    return [key for _, key in heapq.nsmallest(count, valued())]
