"""Many images in a file: tar shards, and Parquet."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from tests.pipeline.explain.jobs import picture, quickly, rows

SETTINGS = {"model": "tests.fragile:model", "num_scales": 1}
pytestmark = pytest.mark.usefixtures("ray_session")


def tar(path, members):
    with tarfile.open(path, "w") as shard:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))


def test_shards_give_their_images_and_labels_and_go_on(tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    samples = [(f"a/{n}.{kind}", content) for n in range(4) for kind, content in (("png", picture(n)), ("cls", b"1\n"))]
    tar(root / "train-0.tar", [*samples, ("bad.jpg", b"no image"), ("bad.cls", b"0"), ("x.jpg", picture(8))])
    tar(root / "train-1.tar", [("0.seg.png", picture(7)), ("0.cls", b"no such class"), ("0.json", b"{}")])
    whole = (root / "train-0.tar").read_bytes()
    (root / "train-2.tar").write_bytes(whole[: 512 + 2 * 1024])
    settings = {"input": str(root), "output": str(tmp_path / "out"), "targets": "label"}
    summary = quickly(**settings)
    found = {row["image_id"]: row["target"] for row in rows(settings["output"])}
    assert {name for name in found if "train-0" in name} == {f"train-0.tar/a/{n}.png" for n in range(4)}
    assert set(found.values()) == {1}
    errors = {row["image_id"]: (row["stage"], row["error"]) for row in rows(settings["output"], "errors")}
    assert errors["train-0.tar/bad.jpg"][0] == "decode"
    assert errors["train-0.tar/x.jpg"] == ("targets", "the image has no label")
    assert errors["train-1.tar/0.seg.png"][0] == "targets"
    assert errors["train-2.tar"][0] == "read"
    [cut] = [name for name in errors if name.startswith("train-2.tar/")]  # the member at which the shard ends
    assert errors[cut][0] == "read"
    assert summary.total.errors == len(errors) == 5
    [uri] = [row["uri"] for row in rows(settings["output"]) if row["image_id"] == "train-0.tar/a/2.png"]
    assert uri == f"{root}/train-0.tar#a/2.png"
    assert prepare(ExplainConfig(**SETTINGS, **settings)).left == 0
    file = next(Path(settings["output"], "maps").glob("*.parquet"))
    lost = pq.read_table(file)["image_id"].to_pylist()
    file.unlink()
    again = quickly(**settings)
    assert (again.images, again.total.errors) == (len(lost), 5)
    assert len(rows(settings["output"])) == len(found)


def test_a_folder_of_parquet_files_with_image_bytes(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for part in range(2):
        cells = [{"bytes": picture(10 * part + n) if n != 3 else b"bad", "path": f"{n}.png"} for n in range(40)]
        pq.write_table(
            pa.table({"image": pa.array(cells, kind), "label": [n % 3 for n in range(40)]}),
            root / f"{part}.parquet",
            row_group_size=16,
        )
    (root / "notes.txt").write_text("no image")
    summary = quickly(input=str(root), output=str(tmp_path / "out"), targets="label")
    assert (summary.images, summary.errors) == (78, 2)
    found = rows(tmp_path / "out")
    assert {row["image_id"]: row["target"] for row in found} == {
        f"{part}.parquet/{n}.png": n % 3 for part in range(2) for n in range(40) if n != 3
    }
