"""What is checked and known of an export into another tool before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sess_ray.access import public, use
from sess_ray.io.checksums import checksums, repeated
from sess_ray.io.file_parts import PARTS, Known, parts_of
from sess_ray.io.moved import Moved
from sess_ray.io.store import FINISHED, STARTED, Store
from sess_ray.pipeline.cluster.output import map_files, refuse_used
from sess_ray.pipeline.export.config import ExportConfig
from sess_ray.pipeline.export.formats import FORMATS
from sess_ray.pipeline.export.samples import Facts, Recipe
from sess_ray.pipeline.gallery.prepare import predicted_names

DATASET = ("export.json", *sorted({name for form in FORMATS.values() for name in form.contents}))
SHARDS = pa.schema(  # a row for a file of the dataset: the parts of files of maps
    [("number", pa.int64()), ("parts", pa.list_(pa.struct(PARTS)))]
)


@dataclass
class Export:
    """An export that has been checked and can start.

    Attributes
    ----------
    config : ExportConfig
    recipe : Recipe
    blocks : list of pa.Table
        Rows of `SHARDS`, one in each.
    known : (Names, Moved or None)
        What images are called as files, and where they are now.
    facts : Facts
    store : Store
    """

    config: ExportConfig
    recipe: Recipe
    blocks: list[pa.Table]
    known: Known
    facts: Facts
    store: Store


def prepare(config: ExportConfig) -> Export:
    """Check everything that can be checked before Ray starts.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    use(config.access())
    run, store = Store(config.run), Store(config.output)
    files = map_files(run, f"--run {public(config.run)}")
    refuse_used(store, DATASET, "a dataset", overwrite=config.overwrite)
    seen = _Seen()
    columns = ["target", "target_name", "predicted", "method", "model"]
    parts, names = parts_of(run, files, columns, seen.note)
    store.check_writable()
    form = FORMATS[config.to]
    recipe = Recipe(_names(run, seen), config.max_pixels, form.kinds)
    record = run.read_json(FINISHED) or run.read_json(STARTED) or {}
    blocks = _blocks(parts, config.shard_images)
    images, most = seen.images()
    facts = Facts(seen.method, seen.model, record, most, images, seen.maps, len(blocks))
    known = names, Moved(config.images) if config.images else None
    return Export(config, recipe, blocks, known, facts, store)


class _Seen:
    """What is known of all maps together when their files have been seen, one after another."""

    def __init__(self) -> None:
        self.method = self.model = ""
        self.maps = 0
        self.names: dict[int, str] = {}
        self.predicted: set[int] = set()
        self._sums = [np.empty(0, np.uint64)]
        self._counts = [np.empty(0, np.int32)]
        self._first = True

    def note(self, table: pa.Table) -> None:
        """Take in the rows of a file."""
        if self._first:
            self.method, self.model = ([*table[name].to_pylist(), ""][0] for name in ("method", "model"))
            self._first = False
        self.maps += len(table)
        targets = table.group_by(["target", "target_name"]).aggregate([]).to_pylist()
        self.names.update((row["target"], row["target_name"]) for row in targets)
        self.predicted.update(table["predicted"].unique().to_pylist())
        ids = table["image_id"].value_counts()
        self._sums.append(checksums(ids.field("values").to_pylist()))
        self._counts.append(ids.field("counts").to_numpy().astype(np.int32))

    def images(self) -> tuple[int, int]:
        """Return how many images there are, and of how many maps one has most."""
        sums, counts = np.concatenate(self._sums), np.concatenate(self._counts)
        several = repeated(np.sort(sums))  # of images with maps in several files
        apart = np.isin(sums, several) if len(several) else np.zeros(len(sums), bool)
        _, places = np.unique(sums[apart], return_inverse=True)
        together = np.bincount(places, counts[apart], minlength=1)
        return len(sums) - int(apart.sum()) + len(several), int(
            max(counts.max(where=~apart, initial=0), together.max())
        )


def _names(run: Store, seen: _Seen) -> dict[int, str]:
    """Return the names of the classes that are predicted, as targets say them, or else the model."""
    unnamed = seen.predicted - set(seen.names)
    return seen.names | (predicted_names(run, unnamed) if unnamed else {})


def _blocks(parts: list[dict[str, Any]], shard_images: int) -> list[pa.Table]:
    """Return a table of `SHARDS` for each file of the dataset."""
    shards: list[dict[str, Any]] = []
    images = 0
    for part in parts:
        if not shards or images >= shard_images:
            shards.append({"number": len(shards), "parts": []})
            images = 0
        shards[-1]["parts"].append(part)
        images += part["images"]
    return [pa.Table.from_pylist([shard], SHARDS) for shard in shards]
