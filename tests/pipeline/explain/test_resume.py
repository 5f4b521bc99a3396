"""A run that goes on where another stopped: nothing lost, nothing twice."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sess_ray import SessError
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.prepare import prepare

pytestmark = pytest.mark.usefixtures("ray_session")


def explain(**settings):
    given = {"model": "tests.fragile:model", "num_scales": 1, "overlays": 0, "actors": "1"} | settings
    return run(prepare(ExplainConfig(**given)))


def rows(output, folder="maps"):
    return [row for path in sorted(Path(output, folder).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def picture(number, size=(40, 30)):
    pixels = np.random.default_rng(number).integers(0, 200, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(5):
        (folder / f"{number}.png").write_bytes(picture(number))
    return folder


@pytest.fixture(scope="module")
def stopped(images, tmp_path_factory):
    settings = {"input": str(images), "output": str(tmp_path_factory.mktemp("half") / "out"), "targets": "top2"}
    explain(**settings, limit=2)
    return settings


@pytest.fixture
def half(stopped, tmp_path):
    """An output that holds two of five images."""
    shutil.copytree(stopped["output"], tmp_path / "out")
    return stopped | {"output": str(tmp_path / "out")}


def test_the_same_command_goes_on(half):
    before = {(row["image_id"], row["target"]): row["saliency"] for row in rows(half["output"])}
    assert {image_id for image_id, _ in before} == {"0.png", "1.png"}
    (Path(half["output"]) / "run.json").unlink()  # as if it had been killed
    hidden = Path(half["output"]) / "maps" / ".writing-x.parquet.0"
    hidden.write_bytes(b"half")
    job = prepare(ExplainConfig(**half, model="tests.fragile:model", num_scales=1, overlays=0))
    assert job.tasks["image_id"].to_pylist() == ["2.png", "3.png", "4.png"]
    assert job.finished == 2
    summary = run(job)
    assert (summary.images, summary.total.images, summary.total.maps) == (3, 5, 10)
    found = rows(half["output"])
    after = {(row["image_id"], row["target"]): row["saliency"] for row in found}
    assert len(after) == len(found) == 10
    assert all(after[key] == saliency for key, saliency in before.items())
    assert not hidden.exists()
    record = json.loads((Path(half["output"]) / "run.json").read_text())
    assert record["counts"] == {"inputs": 5, "images": 5, "maps": 10, "errors": 0}
    assert record["this_run"]["images"] == 3
    again = explain(**half)
    assert (again.images, again.total.images) == (0, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_scales": 2}, "num_scales was 1 and is 2.*--overwrite"),
        ({"targets": "top1", "method": "gradcam++"}, "method was 'gradcam' and is 'gradcam.*targets was 'top2' and is"),
    ],
)
def test_another_configuration_is_refused(half, change, message):
    with pytest.raises(SessError, match=message):
        explain(**{**half, **change})
    assert len(rows(half["output"])) == 4


def test_other_weights_or_code_are_refused_unless_forced(half):
    path = Path(half["output"]) / "started.json"
    started = json.loads(path.read_text())
    started["made_with"] |= {"sess_ray": "0123456789abcdef", "torch": "1.0"}
    path.write_text(json.dumps(started))
    with pytest.raises(
        SessError, match=r"other versions of sess_ray \(0123456789ab then, .*torch \(1.0 .*--resume-any"
    ):
        explain(**half)
    assert explain(**half, resume_anyway=True).total.images == 5
    path.unlink()
    with pytest.raises(SessError, match=r"no started.json that says of which run"):
        explain(**half)


def test_errors_are_tried_again_on_request_only(tmp_path, images):
    manifest = tmp_path / "m.jsonl"
    late = tmp_path / "late.png"
    manifest.write_text("\n".join(json.dumps({"uri": str(uri)}) for uri in (images / "0.png", late)))
    settings = {"input": str(manifest), "output": str(tmp_path / "out")}
    first = explain(**settings)
    assert (first.images, first.errors) == (1, 1)
    late.write_bytes(picture(9))
    same = explain(**settings)
    assert (same.images, same.total.images, same.total.errors) == (0, 1, 1)
    again = explain(**settings, retry_errors=True)
    assert (again.images, again.total.images, again.total.errors) == (1, 2, 0)
    assert not rows(settings["output"], "errors")


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
    summary = explain(**settings)
    found = {row["image_id"]: row["target"] for row in rows(settings["output"])}
    assert {name for name in found if "train-0" in name} == {f"train-0.tar/a/{n}.png" for n in range(4)}
    assert set(found.values()) == {1}
    errors = {row["image_id"]: (row["stage"], row["error"]) for row in rows(settings["output"], "errors")}
    assert errors["train-0.tar/bad.jpg"][0] == "decode"
    assert errors["train-0.tar/x.jpg"] == ("targets", "the image has no label")
    assert errors["train-1.tar/0.seg.png"][0] == "targets"
    assert errors["train-2.tar"][0] == "read"
    assert summary.total.errors == len(errors) == 4
    [uri] = [row["uri"] for row in rows(settings["output"]) if row["image_id"] == "train-0.tar/a/2.png"]
    assert uri == f"{root}/train-0.tar#a/2.png"
    file = next(Path(settings["output"], "maps").glob("*.parquet"))
    lost = pq.read_table(file)["image_id"].to_pylist()
    file.unlink()
    again = explain(**settings)
    assert again.images == len(lost)
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
    summary = explain(input=str(root), output=str(tmp_path / "out"), targets="label")
    assert (summary.images, summary.errors) == (78, 2)
    found = rows(tmp_path / "out")
    assert {row["image_id"]: row["target"] for row in found} == {
        f"{part}.parquet/{n}.png": n % 3 for part in range(2) for n in range(40) if n != 3
    }
