"""Hugging Face's layout: Parquet with images and maps that the hub's viewer shows, and a dataset card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.export.samples import FACTS, Facts, Sample
from sess_ray.tables import markdown

CONTENTS = ("README.md", "data")
GROUP_BYTES = 32 * 2**20  # of images and maps in a row group: what is in memory at a time
DICTIONARY_BYTES = 2**30  # of a row group's distinct images: never more than there are
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGES = ("image", "saliency")
# The hub's names for how many rows there are.
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
COLUMNS = {
    "image": "the image, as it was explained",
    "saliency": "the map, 8-bit grey: how much each pixel speaks for the target; it may be smaller than the image",
    "image_id": "where the image was",
    "target, target_name, target_classes": "the class that the map explains, or the group of classes",
    "score": "probability of the target in the whole image",
    "predicted, predicted_name, predicted_score": "the likeliest class of the whole image",
    "height, width": "of the image",
    "peak_x, peak_y": "the pixel where the map is largest",
    "num_patches, num_scored, num_kept": "windows, those scored, those that the map is made of",
    "method, model": "the base method, and the classifier",
}


def _kind(name: str) -> pa.DataType:
    if name in IMAGES:
        return PICTURE
    kind = MAPS.field(name).type if name in MAPS.names else pa.string()
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Return how `datasets` writes a type."""
    if kind == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


_TYPES = {name: _kind(name) for name in (*IMAGES, *FACTS)}
_INFO = {"info": {"features": {name: _feature(kind) for name, kind in _TYPES.items()}}}
SCHEMA = pa.schema(list(_TYPES.items()), {"huggingface": json.dumps(_INFO)})


def pack(samples: Iterable[Sample], store: Store, number: int, count: int) -> Iterator[str]:
    """Write a Parquet file with a row for each map; an image of several is in each of its row groups once."""
    distinct = ["image.bytes", "image.path", *(name for name, kind in _TYPES.items() if kind == pa.string())]
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, "shard.parquet")
        told = []
        options = {"use_dictionary": distinct, "dictionary_pagesize_limit": DICTIONARY_BYTES}
        with pq.ParquetWriter(path, SCHEMA, **options) as writer:
            rows: list[dict[str, Any]] = []
            size = 0
            for sample in samples:
                image = {"bytes": sample.content, "path": f"{sample.name}.{sample.kind}"}
                for row in sample.maps:
                    saliency = {"bytes": row["png"], "path": f"{sample.name}.png"}
                    rows.append({**row, "image": image, "saliency": saliency})
                    size += len(sample.content) + len(row["png"])
                told.append("")
                if size >= GROUP_BYTES:
                    writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                    rows, size = [], 0
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        if told:
            store.put(f"data/train-{number:05}-of-{count:05}.parquet", path)
    yield from told


def finish(documents: Iterable[str], store: Store, facts: Facts) -> None:
    """Write the card when all shards are there."""
    for _ in documents:
        pass
    store.write("README.md", card(facts).encode())


def card(facts: Facts) -> str:
    """Return the dataset card: what the hub reads in front, and below it what people do."""
    maps, images = facts.written["maps"], facts.written["images"]
    size = next((name for most, name in SIZES.items() if maps < most), "n>10M")
    config = facts.record.get("config") or facts.record.get("settings") or {}
    told = ("num_scales", "pre_filter_ratio", "fade", "windows", "fusion", "step_size", "precision", "targets", "seed")
    settings = [("setting", "value"), *((name, config[name]) for name in told if config.get(name) is not None)]
    return f"""---
pretty_name: {json.dumps(f"Saliency maps of {facts.model} by {facts.method}")}
size_categories:
- {size}
tags:
- saliency
- explainability
- sess-ray
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

# What {facts.model} looks at

{maps:,} saliency maps of {images:,} images: `{facts.method}`, made by [sess-ray](https://github.com/sess-ray/sess-ray).
A row for each map; an image with several targets has several.

```python
import datasets

maps = datasets.load_dataset("FOLDER_OR_NAME", split="train")
maps[0]["image"], maps[0]["saliency"], maps[0]["target_name"]
```

{markdown([("column", ""), *COLUMNS.items()])}

{markdown(settings) if len(settings) > 1 else ""}

The images have the licence that they had; say it above (`license:`) before you publish them.
"""
