"""Annotations to read: small ones of each format, and those of the shared data."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import SHARED

COCO = {
    "images": [{"id": 9, "file_name": "000000000009.jpg", "width": 6, "height": 4}, {"id": 10, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 18, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1, 2, 3.5, 1], "segmentation": [[1, 2, 4, 2, 4, 3]]},
        {
            "id": 2,
            "image_id": 9,
            "category_id": 1,
            "bbox": [0, 0, 2, 2],
            "iscrowd": 1,
            "segmentation": {"size": [4, 6], "counts": [0, 2, 2, 2, 18]},
        },
    ],
}


def xml(objects, name="000005.jpg", database="The VOC2007 Database", size=(500, 375)):
    boxes = "".join(
        f"<object><name>{label}</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part><bndbox>"
        f"<xmax>{x1}</xmax><xmin>{x0}</xmin><ymin>{y0}</ymin><ymax>{y1}</ymax></bndbox></object>"
        for label, x0, y0, x1, y1 in objects
    )
    return (
        f"<annotation><folder>F</folder><filename>{name}</filename><source><database>{database}</database></source>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>{boxes}</annotation>"
    )


def listed(annotations):
    return {key: [(o.label, o.box) for o in value.objects] for key, value in annotations.by_id.items()}


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} of the shared data: set SESS_RAY_DATA to the folder that holds it")
    return str(path)


BY_OBJECT = [
    {"id": "x/a.jpg", "label": "cat", "x0": 0, "y0": 1, "x1": 2.5, "y1": 3},
    {"id": "x/a.jpg", "label": "dog", "x0": 1, "y0": 1, "x1": 2, "y1": 2},
    {"id": "7", "label": None, "x0": None, "y0": None, "x1": None, "y1": None},
]


def parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()
