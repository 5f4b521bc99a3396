"""Tar shards whose ids nobody holds: each is a span, read in one task; the driver has a line for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.io.cuts import Shards, numbers_of
from sess_ray.io.held import Held, held
from sess_ray.io.items import shard_rows
from sess_ray.io.store import Store
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.resume import held_before
from sess_ray.pipeline.explain.source import TarSource

FILES = pa.field("files", pa.list_(pa.string()))  # of a shard that another run has begun: what they hold is left out


@dataclass
class Tars:
    """What is left of tar shards.

    Attributes
    ----------
    source : TarSource
    tasks : pa.Table
        Shards that are not finished, as `sess_ray.pipeline.explain.stages.TASKS` has them.
    held : Held
        What the output holds.
    declared : None
        The labels in shards are classes of the model.
    """

    source: TarSource
    tasks: pa.Table
    held: Held
    declared: None = None

    @property
    def left(self) -> int:
        """Number of shards that are not finished."""
        rows: int = self.tasks.num_rows
        return rows

    @property
    def begun(self) -> int:
        """Number of images of these that are explained, or could not be."""
        return sum(self.held.rows.get(span, 0) for span in _spans(self.tasks))

    def lines(self, *_: int) -> list[pa.Table]:
        """Return the shards, each a block of one line, whatever it holds."""
        files = pa.array([self.held.files.get(span) for span in _spans(self.tasks)], FILES.type)
        table = self.tasks.append_column(FILES, files).combine_chunks()
        return [table.slice(row, 1) for row in range(table.num_rows)]


def known(tasks: pa.Table, config: ExplainConfig, store: Store, started: dict[str, Any] | None) -> bool:
    """Say whether tasks are tar shards whose images nobody has to hold.

    Those are not that an output was begun with otherwise, or beside something else: there rows may be anywhere.

    Parameters
    ----------
    tasks : pa.Table
        As `sess_ray.pipeline.explain.stages.TASKS` has them.
    config : ExplainConfig
    store : Store
        The output.
    started : dict or None
        What its started.json says.
    """
    if config.annotations is not None or not tasks.num_rows or not pc.all(shard_rows(tasks["uri"])).as_py():
        return False
    if len(set(_spans(tasks))) < tasks.num_rows:
        return False
    told = Shards().told()
    return started is None or (started.get("spans") == told and not held(store, Shards()).strangers)


def planned(tasks: pa.Table, config: ExplainConfig, store: Store, *, resumed: bool) -> Tars:
    """Return what is left of tar shards.

    Parameters
    ----------
    tasks, config, store
        As for `known`.
    resumed : bool
        Whether another run has written to the output.
    """
    found = held_before(store, Shards(), config) if resumed else Held()
    finished = [span in found.finished for span in _spans(tasks)]
    left = tasks.filter(pc.invert(pa.array(finished))) if any(finished) else tasks
    return Tars(TarSource(store.location), left, found)


def _spans(tasks: pa.Table) -> list[int]:
    """Return the spans that shards are."""
    return numbers_of(tasks["image_id"].to_pylist())
