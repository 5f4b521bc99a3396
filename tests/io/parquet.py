"""Parquet files with images, as Hugging Face's datasets write them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

PNG = b"\x89PNG one", b"\x89PNG two", b"\x89PNG three"
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LABEL = {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}


def written(path, table, **features):
    """Write a table, with what Hugging Face's datasets say of its columns."""
    if features:
        told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        table = table.replace_schema_metadata(told)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)
    return str(path)
