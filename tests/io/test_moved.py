"""Images that have moved, found by their ids."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray.io import moved
from sess_ray.io.checksums import checksums
from sess_ray.io.moved import Moved


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "images.csv"
    path.write_text("uri,id\n" + "\n".join(f"/new/{number}.jpg,ä{number}" for number in range(200)))
    return str(path)


@pytest.mark.parametrize("sums", [checksums, lambda ids: np.zeros(len(ids), np.uint64)])
def test_each_image_is_found_also_where_checksums_are_the_same(manifest, sums, monkeypatch):
    monkeypatch.setattr(moved, "checksums", sums)
    known = Moved(manifest)
    assert known.find(["ä199", "none", "ä0", "ä0", "ä57"]) == ["/new/199.jpg", None, *["/new/0.jpg"] * 2, "/new/57.jpg"]
    assert known.find([]) == []
