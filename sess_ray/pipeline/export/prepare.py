"""What is checked and known of an export into another tool before it starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sess_ray.access import public, use
from sess_ray.io.inputs import find_images
from sess_ray.io.store import FINISHED, STARTED, Store
from sess_ray.pipeline.cluster.output import map_files, refuse_used
from sess_ray.pipeline.export.config import ExportConfig
from sess_ray.pipeline.export.formats import FORMATS
from sess_ray.pipeline.export.samples import Facts, Recipe
from sess_ray.pipeline.gallery.prepare import predicted_names
from sess_ray.pipeline.labels.prepare import file_names

DATASET = ("export.json", *sorted({name for form in FORMATS.values() for name in form.contents}))
SHARDS = pa.schema(  # a row for a file of the dataset: the files of maps, and their images
    [
        ("number", pa.int64()),
        *((name, pa.list_(pa.string())) for name in ("files", "image_ids", "names", "uris")),
    ]
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
    facts : Facts
    store : Store
    """

    config: ExportConfig
    recipe: Recipe
    blocks: list[pa.Table]
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
    columns = ["image_id", "uri", "target", "target_name", "predicted", "method", "model"]
    tables = run.read_tables(files, columns)
    store.check_writable()
    form = FORMATS[config.to]
    recipe = Recipe(_names(run, tables), config.max_pixels, form.kinds)
    images = Counter(image_id for table in tables for image_id in table["image_id"].to_pylist())
    record = run.read_json(FINISHED) or run.read_json(STARTED) or {}
    [method, model] = ([*tables[0][name].to_pylist(), ""][0] for name in ("method", "model"))
    blocks = _blocks(files, tables, config)
    facts = Facts(method, model, record, max(images.values()), len(images), images.total(), len(blocks))
    return Export(config, recipe, blocks, facts, store)


def _names(run: Store, tables: list[pa.Table]) -> dict[int, str]:
    """Return the names of the classes that are predicted, as targets say them, or else the model."""
    rows = [row for table in tables for row in table.group_by(["target", "target_name"]).aggregate([]).to_pylist()]
    names = {row["target"]: row["target_name"] for row in rows}
    predicted = {number for table in tables for number in table["predicted"].unique().to_pylist()}
    unnamed = predicted - set(names)
    return names | (predicted_names(run, unnamed) if unnamed else {})


def _blocks(files: list[str], tables: list[pa.Table], config: ExportConfig) -> list[pa.Table]:
    """Return a table of `SHARDS` for each file of the dataset."""
    moved = {item.image_id: item.uri for item in find_images(config.images)} if config.images else {}
    # The images of each file, in its order; all rows of one say the same URI.
    found = [dict(zip(*(table[name].to_pylist() for name in ("image_id", "uri")), strict=True)) for table in tables]
    names = file_names(image_id for uris in found for image_id in uris)
    shards: list[dict[str, Any]] = []
    for file, uris in zip(files, found, strict=True):
        if not shards or len(shards[-1]["image_ids"]) >= config.shard_images:
            shards.append({"number": len(shards), "files": [], "image_ids": [], "names": [], "uris": []})
        shards[-1]["files"].append(file)
        shards[-1]["image_ids"] += uris
        shards[-1]["names"] += [names[image_id] for image_id in uris]
        shards[-1]["uris"] += [moved.get(image_id, uri) for image_id, uri in uris.items()]
    return [pa.Table.from_pylist([shard], SHARDS) for shard in shards]
