"""Manifests of many rows, and what an output holds of them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.io.spans import Spans
from sess_ray.io.store import ERRORS, MAPS


def written(path, names, places=None, group=7):
    """Write a manifest of ids, and return it cut into spans of four rows."""
    columns = {"id": names, "uri": places or [f"/images/{name}.jpg" for name in names]}
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return Spans(str(path), len(names), 4, "")


def maps(*keys):
    return pa.Table.from_pylist([{"image_id": name, "target": target} for name, target in keys], MAPS)


def errors(*names):
    return pa.Table.from_pylist([{"image_id": name, "stage": "read"} for name in names], ERRORS)
