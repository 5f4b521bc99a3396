"""A run that goes on where another stopped: nothing lost, nothing twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

from sess_ray import SessError
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.prepare import prepare
from tests.pipeline.explain.jobs import picture, quickly, rows

GOLDEN = Path(__file__).parents[2] / "golden" / "output-0.1.0"
pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(5):
        (folder / f"{number}.png").write_bytes(picture(number))
    return folder


@pytest.fixture(scope="module")
def stopped(images, tmp_path_factory):
    settings = {"input": str(images), "output": str(tmp_path_factory.mktemp("half") / "out"), "targets": "top2"}
    quickly(**settings, limit=2)
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
    again = quickly(**half)
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
        quickly(**{**half, **change})
    assert len(rows(half["output"])) == 4


def test_other_weights_or_code_are_refused_unless_forced(half):
    path = Path(half["output"]) / "started.json"
    started = json.loads(path.read_text())
    started["made_with"] |= {"sess_ray": "0123456789abcdef", "torch": "1.0"}
    path.write_text(json.dumps(started))
    with pytest.raises(
        SessError, match=r"other versions of sess_ray \(0123456789ab then, .*torch \(1.0 .*--resume-any"
    ):
        quickly(**half)
    assert quickly(**half, resume_anyway=True).total.images == 5
    path.unlink()
    with pytest.raises(SessError, match=r"no started.json that says of which run"):
        quickly(**half)


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
        quickly(**moved)
    with pytest.raises(SessError, match=r"\(num_scales was 1 and is 2\): add --overwrite to replace"):
        quickly(**moved, num_scales=2, resume_anyway=True)
    assert quickly(**moved, resume_anyway=True).total.images == 5
    assert quickly(**moved).total.images == 5  # it is this input's now


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
    assert (decided["pre_filter_ratio"], decided["fade"]) == (0.0, 0.1)
    assert prepare(ExplainConfig(**given, **decided))
    with pytest.raises(SessError, match="step_size was 224 and is 112"):
        prepare(ExplainConfig(**given, step_size=112))
    path = tmp_path / "out" / "started.json"
    started = json.loads(path.read_text())
    started["settings"]["step_size"] = None  # as versions before wrote it
    del started["settings"]["fade"]
    path.write_text(json.dumps(started))
    assert prepare(ExplainConfig(**given, step_size=224, fade=0.0))
    with pytest.raises(SessError, match=r"fade was 0\.0 and is 0\.1"):
        prepare(ExplainConfig(**given))
    with pytest.raises(SessError, match="step_size was 224 and is 112"):
        prepare(ExplainConfig(**given, step_size=112))


def test_an_output_of_the_version_before_goes_on(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "out")
    settings = {"output": str(tmp_path / "out"), "num_scales": 2, "max_map_side": 64, "overlays": 0, "limit": 4}
    settings |= {"pre_filter_ratio": 0.9, "fade": 0.0}  # the defaults then
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
    first = quickly(**settings)
    assert (first.images, first.errors) == (1, 1)
    late.write_bytes(picture(9))
    same = quickly(**settings)
    assert (same.images, same.total.images, same.total.errors) == (0, 1, 1)
    again = quickly(**settings, retry_errors=True)
    assert (again.images, again.total.images, again.total.errors) == (1, 2, 0)
    assert not rows(settings["output"], "errors")
