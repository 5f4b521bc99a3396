"""Folders to read from, and outputs of a span."""

from __future__ import annotations

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray.io.spans import Spans
from tests.io.scattering import IDS, blocks, filled, seen


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """Write files into a folder and return its URL."""
    url = str(tmp_path) if request.param == "local" else f"memory://annotations/{tmp_path.name}"

    def write(files):
        for name, content in files.items():
            with fsspec.open(f"{url}/{name}", "wb", auto_mkdir=True) as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        return url

    return write


@pytest.fixture
def spans(tmp_path):
    """A manifest of forty images, which is one span."""
    pq.write_table(pa.table({"id": IDS, "uri": [f"/{name}.jpg" for name in IDS]}), tmp_path / "m.parquet")
    return Spans(str(tmp_path / "m.parquet"), len(IDS), len(IDS), "")


@pytest.fixture
def scattered(tmp_path):
    """A finished span in seven blocks, and what readers find there."""
    store = filled(tmp_path / "out", blocks(0, 7))
    return store, sorted(seen(store))
