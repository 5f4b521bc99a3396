"""Manifests whose ids nobody holds: which inputs are such, and what is left of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sess_ray.io.held import Held, held
from sess_ray.io.items import ITEMS
from sess_ray.io.spans import Known, cut
from sess_ray.io.store import Store
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.lines import lines
from sess_ray.pipeline.explain.resume import held_before
from sess_ray.pipeline.explain.source import Source
from sess_ray.pipeline.explain.stages import TASKS

if TYPE_CHECKING:
    from sess_ray.models import Model
    from sess_ray.pipeline.explain.targets import Declared

LOOKED = 8  # spans, of which a sample is taken
SAMPLE = 256  # images of a span


@dataclass
class Large:
    """What is left of a large manifest.

    Attributes
    ----------
    source : Source
    held : Held
        What the output holds.
    declared : Declared or None
        What the manifest's words mean, where it says what to explain.
    """

    source: Source
    held: Held = field(default_factory=Held)
    declared: Declared | None = None

    @property
    def left(self) -> int:
        """Number of rows that are not explained."""
        return sum(self.source.left(self.held).values())

    def lines(self, actors: int, most: int) -> list[pa.Table]:
        """Return what is left as blocks of one line; see `sess_ray.pipeline.explain.lines.lines`."""
        return lines(self.source, self.held, actors, most)


def known(config: ExplainConfig, store: Store, started: dict[str, Any] | None) -> Known | None:
    """Return what is known of an input that is a large manifest; None where its ids are held and compared.

    These are small ones, those that annotations belong to; and those of an output that was begun otherwise, or with
    another manifest of this name: there rows may be anywhere.
    """
    if config.input is None or config.annotations is not None:
        return None
    found = cut(config.input, config.image_column, config.label_column)
    if found and config.targets == "label" and not (found.columns.label or found.columns.targets or found.folders):
        return None  # `read_inputs` has words for it
    if found is None or started is None:
        return found
    same = started.get("spans") == found.spans.told()
    return found if same and not held(store, found.spans).strangers else None


def planned(config: ExplainConfig, known: Known, model: Model) -> Large:
    """Return a large manifest with what to explain of it, before it is known what is left."""
    from sess_ray.pipeline.explain.targets import Declared, meant

    found = meant(config.targets, model, config.class_map, known)
    stop = min(known.spans.rows, config.limit or known.spans.rows)
    top, targets = (found, None) if isinstance(found, str) else (None, found)
    if isinstance(targets, Declared):
        source = Source(known.spans, Store(config.output).location, stop, level=targets.level)
        return Large(source, declared=targets)
    return Large(Source(known.spans, Store(config.output).location, stop, top, targets))


def looked_at(
    config: ExplainConfig, store: Store | None, found: Large, resolve: Callable[[pa.Table], pa.Table]
) -> pa.Table:
    """Note what the output of a run before holds; return tasks for a trial to look at, else none.

    Parameters
    ----------
    config : ExplainConfig
    store : Store or None
        None where the output is unused.
    found : Large
    resolve : callable
        Images, as `ITEMS` has them, to their tasks.
    """
    if store:
        found.held = held_before(store, found.source.spans, config)
    return _sample(found, resolve) if config.dry_run else TASKS.empty_table()


def _sample(found: Large, resolve: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Return the tasks of some images that are left, spread over the manifest."""
    spans = list(found.source.left(found.held))
    step = max(1, len(spans) // LOOKED)
    some = (islice(found.source.spans.images(span), SAMPLE) for span in spans[::step][:LOOKED])
    rows = [image for image, rows in chain.from_iterable(some) if rows[0] < found.source.stop]
    items = pa.Table.from_pylist(rows, ITEMS)
    return resolve(items) if items.num_rows else TASKS.empty_table()
