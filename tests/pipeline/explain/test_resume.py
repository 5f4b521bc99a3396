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
import torch
from PIL import Image
from torchvision.models import squeezenet1_1

from sess_ray import SessError
from sess_ray.pipeline.explain.code import MAKERS, PACKAGE, code_sha256
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.prepare import prepare

GOLDEN = Path(__file__).parents[2] / "golden" / "output-0.1.0"

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


def test_one_place_may_be_spelled_in_several_ways(half, images, tmp_path, monkeypatch):
    monkeypatch.chdir(images.parent)
    (tmp_path / "link").symlink_to(images)
    for place in (f"{images}/", f"./{images.name}", images.name, f"file://{images}", f"{tmp_path}/link"):
        job = prepare(ExplainConfig(**half | {"input": place}, model="tests.fragile:model", num_scales=1))
        assert job.finished == 2, place
        assert job.settings["input"] == str(images)


def test_class_names_that_lie_elsewhere_are_others(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("names.txt", "others.txt"):
        (tmp_path / name).write_text("a\nb\nc\n")
    given = {"model": "tests.fragile:model", "num_scales": 1, "input": str(images), "output": "out", "limit": 1}
    prepare(ExplainConfig(**given, class_names=str(tmp_path / "names.txt"))).start()
    assert prepare(ExplainConfig(**given, class_names="./names.txt"))
    with pytest.raises(SessError, match=r"class_names was .*names.txt' and is .*others.txt'\): add --resume-anyway"):
        prepare(ExplainConfig(**given, class_names="others.txt"))


def test_images_that_have_moved_go_on_when_forced(half, images, tmp_path):
    shutil.copytree(images, tmp_path / "moved")
    moved = half | {"input": str(tmp_path / "moved")}
    with pytest.raises(SessError, match=r"input was .* and is .*/moved'\): add --resume-anyway to go on, --overwrite"):
        explain(**moved)
    with pytest.raises(SessError, match=r"\(num_scales was 1 and is 2\): add --overwrite to replace"):
        explain(**moved, num_scales=2, resume_anyway=True)
    assert explain(**moved, resume_anyway=True).total.images == 5
    assert explain(**moved).total.images == 5  # it is this input's now


def test_the_same_weights_elsewhere_are_the_same(images, tmp_path):
    (tmp_path / "b").mkdir()
    given = {"model": "squeezenet1_1", "input": str(images), "output": str(tmp_path / "out"), "num_scales": 1}
    state = squeezenet1_1(num_classes=4).state_dict()
    for name in ("a.pth", "b/other.pth"):
        torch.save(state if name == "a.pth" else {"state_dict": state}, tmp_path / name)  # other bytes
    prepare(ExplainConfig(**given, weights=str(tmp_path / "a.pth"))).start()
    assert prepare(ExplainConfig(**given, weights=str(tmp_path / "b" / "other.pth")))
    state["classifier.1.bias"][0] += 1
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(SessError, match=r"other versions of weights \(.*--resume-anyway"):
        prepare(ExplainConfig(**given, weights=str(tmp_path / "a.pth")))
    assert prepare(ExplainConfig(**given, weights=str(tmp_path / "a.pth"), resume_anyway=True))


def test_what_is_left_to_the_model_is_compared_as_it_was_decided(images, tmp_path):
    given = {"model": "tests.fragile:model", "input": str(images), "output": str(tmp_path / "out"), "num_scales": 1}
    job = prepare(ExplainConfig(**given))
    job.start()
    decided = {name: job.settings[name] for name in ("step_size", "pre_filter_ratio", "fade")}
    assert decided["step_size"] == 224
    assert (decided["pre_filter_ratio"], decided["fade"]) == (0.0, 0.0)
    assert prepare(ExplainConfig(**given, **decided))
    with pytest.raises(SessError, match="step_size was 224 and is 112"):
        prepare(ExplainConfig(**given, step_size=112))
    path = tmp_path / "out" / "started.json"
    started = json.loads(path.read_text())
    started["settings"]["step_size"] = None  # as versions before wrote it
    del started["settings"]["fade"]
    path.write_text(json.dumps(started))
    assert prepare(ExplainConfig(**given, step_size=224))
    with pytest.raises(SessError, match=r"fade was 0\.0 and is 0\.1"):
        prepare(ExplainConfig(**given, fade=0.1))
    with pytest.raises(SessError, match="step_size was 224 and is 112"):
        prepare(ExplainConfig(**given, step_size=112))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, whose lines may be changed."""
    place = tmp_path_factory.mktemp("copy") / "sess_ray"
    shutil.copytree(PACKAGE, place, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.mark.parametrize(
    ("file", "method", "matters"),
    [
        ("engine/fusion.py", "cam", True),
        ("engine/sess.py", "cam", True),
        ("windows.py", "cam", True),
        ("resampling.py", "cam", True),
        ("blur.py", "cam", True),
        ("io/decode.py", "cam", True),
        ("io/maps.py", "cam", True),
        ("models/layers.py", "cam", True),
        ("methods/cam.py", "cam", True),
        ("methods/passes.py", "perturbation", True),
        ("methods/perturbation.py", "perturbation", True),
        ("methods/perturbation.py", "cam", False),
        ("pictures/overlay.py", "cam", False),
        ("pictures/plots.py", "cam", False),
        ("pipeline/gallery/job.py", "cam", False),
        ("cli/explain.py", "cam", False),
        ("metrics/suite.py", "cam", False),
        ("io/store.py", "cam", False),
        ("__init__.py", "cam", False),
    ],
)
def test_only_changed_code_that_makes_maps_counts(package, file, method, matters):
    def code():
        code_sha256.cache_clear()
        return code_sha256(f"sess_ray.methods.{method}", package=package)

    path = package / file
    before, source = code(), path.read_text()
    assert before == code_sha256(f"sess_ray.methods.{method}")  # wherever the package lies
    path.write_text(f"{source}\nCHANGED = 1\n")
    assert (code() != before) == matters
    path.write_text(source)


def test_a_module_that_the_engine_begins_to_import_counts(package):
    fusion, new = package / "engine" / "fusion.py", package / "engine" / "new.py"
    source = fusion.read_text()
    fusion.write_text(f"{source}\nfrom . import new\n")
    found = []
    for text in ("ONE = 1\n", "ONE = 2\n"):
        new.write_text(text)
        code_sha256.cache_clear()
        found.append(code_sha256(package=package))
    fusion.write_text(source)
    assert len(set(found)) == 2


def test_every_entry_is_there():
    assert all(PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py").is_file() for name in MAKERS)


def test_an_output_of_the_version_before_goes_on(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "out")
    settings = {"output": str(tmp_path / "out"), "num_scales": 2, "max_map_side": 64, "overlays": 0, "limit": 4}
    settings |= {"pre_filter_ratio": 0.9}  # the default then
    before = {row["image_id"]: row["saliency"] for row in rows(tmp_path / "out")}
    assert len(before) == 3
    with pytest.raises(SessError, match=r"other versions of sess_ray \(38e937b275fd then, .*--resume-anyway"):
        prepare(ExplainConfig(**settings))
    with pytest.raises(SessError, match=r"num_scales was 2 and is 3"):
        prepare(ExplainConfig(**settings | {"num_scales": 3, "resume_anyway": True}))
    summary = run(prepare(ExplainConfig(**settings, resume_anyway=True, actors="1")))
    assert (summary.images, summary.total.images) == (1, 4)
    after = {row["image_id"]: row["saliency"] for row in rows(tmp_path / "out")}
    assert before.items() <= after.items()


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
