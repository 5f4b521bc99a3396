"""What an evaluation has measured of a run, as it is read: some thousand maps at a time, and nothing of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa

from sess_ray.access import public
from sess_ray.errors import SessError, unknown
from sess_ray.io.groups import stream_tables
from sess_ray.io.store import Store

FILES_AT_ONCE = 8  # each has the rows of a block: 32 MiB at most, curves included
GROUP_FILES = 256  # that are read by one call: of at most 4096 rows each
SIZES = {"< 5 %": 0.05, "5 to 25 %": 0.25, "> 25 %": 1.0}  # of the image that a target takes, up to
ROWS = 32_768  # that are summed up at a time: with all curves of the suite 150 MB

# Given columns of results/, its rows, always in the same order.
Chunks = Callable[[Sequence[str]], Iterator[pa.Table]]


def measured(evaluation: Store, run: str) -> Chunks:
    """Return what reads the rows of results/ of a run, by its name."""
    return partial(_read, evaluation, evaluation.tables(f"results/{run}"))


def grouped(evaluation: Store, run: str) -> list[Chunks]:
    """Return what reads the rows of results/ of a run, those of some files each."""
    files = evaluation.tables(f"results/{run}")
    cuts = range(0, len(files), GROUP_FILES)
    return [partial(_of_files, evaluation.location, files[cut : cut + GROUP_FILES]) for cut in cuts]


def _of_files(location: str, files: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    return _read(Store(location), files, columns)


def _read(evaluation: Store, files: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    yield from joined((table for _, table in stream_tables(evaluation, files, list(columns), FILES_AT_ONCE)), ROWS)


def joined(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Join tables, in order, to larger ones, of at least so many rows but for the last."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= rows:
            yield pa.concat_tables(waiting)
            waiting = []
    if any(map(len, waiting)):
        yield pa.concat_tables(waiting)


def results_of(evaluation: Store, run: str) -> tuple[list[str], Chunks]:
    """Return the columns of results/ of a run, and what reads its rows.

    Parameters
    ----------
    evaluation : Store
        The output of `sess_ray.pipeline.evaluate.job`.
    run : str
        The URL that was evaluated.

    Raises
    ------
    SessError
        If there is no evaluation, or it is not of this run, or could measure none of its maps.
    """
    record = evaluation.read_json("summary.json")
    if record is None:
        raise SessError(f"{public(evaluation.url)} has no summary.json: give the --output of sess-ray evaluate")
    pairs = (entry.partition("=") for entry in record["config"]["run"])
    names = {url.rstrip("/"): name for name, _, url in pairs}
    place = public(run).rstrip("/")
    if place not in names:
        raise unknown(f"run of the evaluation {public(evaluation.url)}", place, names)
    files = evaluation.tables(f"results/{names[place]}")
    if not files:
        raise SessError(f"the evaluation {public(evaluation.url)} could measure no map of {place}: see its problems/")
    return evaluation.read_table(files[0]).column_names, measured(evaluation, names[place])
