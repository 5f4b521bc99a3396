"""URLs that are signed, through the whole job: what signs them is written nowhere."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.io.signed import SECRET, SIGNED, serving
from tests.pipeline.explain.jobs import quickly, rows

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_signature_stands_in_no_file_and_on_no_screen(tmp_path, monkeypatch, capfd):
    with serving() as host:
        manifest = f"{host}/job.csv?{SIGNED}"
        settings = {"input": manifest, "output": str(tmp_path / "out"), "retry_seconds": 0.1, "overlays": 2}
        monkeypatch.setattr("sys.argv", ["sess-ray", "explain", "--input", manifest])
        summary = quickly(**settings)
        assert quickly(**settings | {"input": f"{manifest}7"}).images == 0  # another signature, of the same
    assert (summary.images, summary.errors) == (3, 1)
    [broken] = rows(settings["output"], "errors")
    assert broken["image_id"] == broken["uri"] == f"{host}/photos/gone.png"
    assert "403" in broken["error"]
    assert {row["image_id"] for row in rows(settings["output"])} >= {f"{host}/photos/1.png"}
    written = [file for file in Path(settings["output"]).rglob("*") if file.is_file()]
    assert {file.name for file in written} >= {"run.json", "started.json"}
    for file in written:
        content = file.read_bytes()
        if file.suffix == ".parquet":  # its pages are compressed
            content += str(pq.read_table(file).to_pylist()).encode()
        assert SECRET.encode() not in content, file
        assert SECRET not in str(file)
        assert b"Signature" not in content, file
    told = capfd.readouterr()
    assert SECRET not in told.out + told.err
