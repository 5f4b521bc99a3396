"""The measurement of readers, of few rows: each reads what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sess_ray.io.store import Store
from tests.scale import readers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("readers")
    readers.write_run(Store(str(root / "run")), 12_000, 5)
    for seed, run in enumerate(("base", "sess")):
        readers.write_results(Store(str(root / "evaluation")), run, 600, 5, seed)
    return root


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_run", "12000 maps, 100 of them read"),
        ("export", "12000 images in 10 shards"),
        ("labels", "11 parts, 5 classes"),
        ("gallery", "12000 maps"),
        ("evaluate, before", "12000 maps in 4 blocks"),
        ("evaluate, report of one", "32 lines, 8 pictures"),
        ("evaluate, report of two", "68 lines, 12 pictures"),
    ],
)
def test_each_reader_reads_all(folder, name, said):
    [reader] = [reader for reader in readers.READERS if reader.startswith(name)]
    found = readers.measure(reader, Path(folder))
    assert str(found["said"]).startswith(said)
    assert found["peak"] >= found["imports"] > 50
