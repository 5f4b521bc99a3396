"""The benchmark's figures are of what they say, and two of them can be compared."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from sess_ray import SESS, SessError, demo, load_model
from sess_ray.benchmark import core, passes, report
from sess_ray.benchmark.config import BenchmarkConfig, batches, engine, inputs
from sess_ray.benchmark.passes import Recorder
from sess_ray.benchmark.rate import flops_of_window
from sess_ray.io.decode import decode
from tests.faults import tiny
from tests.faults.tiny import PAUSE

TINY = "tests.faults.tiny:model"  # a forward pass takes PAUSE
MULTIPLYING = 0.25  # seconds


@pytest.fixture(scope="module")
def config():
    return BenchmarkConfig(model=TINY, num_scales=1, batch_size=(4, 64), ratios=(0.0, 0.9), targets=2, images=2)


@pytest.fixture(scope="module")
def small_images():
    return [np.random.default_rng(seed).integers(0, 255, (32, 200, 3), np.uint8) for seed in range(2)]


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only while the model pauses."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    def timed(function, *arguments):
        begin = now[0]
        function(*arguments)
        return now[0] - begin

    monkeypatch.setattr(tiny, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(core, "multiply", lambda _: sleep(MULTIPLYING))
    for module in (core, passes):
        monkeypatch.setattr(module, "timed", timed)
    return now


@pytest.mark.slow
def test_the_windows_lie_ready_as_the_engine_batches_them(config, small_images):
    sess = engine(config)
    assert (sess.batch_size, sess.pre_filter_ratio) == (4, 0)
    found = batches(sess, small_images[0])
    assert [len(batch) for batch in found] == [4, 3]
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in found)
    passed = []
    sess.model.scorer.register_forward_pre_hook(lambda _, given: passed.append(given[0].clone()))
    sess.explain(small_images[:1])
    assert torch.equal(torch.cat(passed)[1:], torch.cat(found))  # the whole image is in front


@pytest.mark.usefixtures("clock")
def test_times_are_those_of_the_passes(config, small_images):
    """Two images of seven windows and the whole image: sixteen rows share batches; those of the floor do not."""
    found = core.measure_core(config, small_images)
    engines = ["r = 0", "r = 0.9", "r = 0, guided windows", "r = 0, 2 targets"]
    names = [core.FLOOR, core.FORWARD, *engines, core.WITHOUT]
    assert [(row["batch_size"], row["engine"]) for row in found] == [(size, name) for size in (4, 64) for name in names]
    for row in found:
        alone = row["engine"] == core.WITHOUT
        passes = {4: 4, 64: 1 if row["engine"] in engines else 2}[row["batch_size"]] if not alone else 1
        windows = 2 if alone else 14
        assert (row["windows"], row["images"]) == (windows, 2)
        assert row["ms_per_window"] == pytest.approx(1000 * PAUSE * passes / windows)
        assert row["images_per_second"] == pytest.approx(2 / (PAUSE * passes))
        operations = 2 * (256 * 8 * 27 + 64 * 16 * 72 + 64 * 16 * 144 + 16 * 6)  # of a window
        rate = operations * row["windows_per_second"]
        assert row["matrix_share"] == pytest.approx(rate / (2 * 2048**3 / MULTIPLYING))
        floor = found[0 if row["batch_size"] == 4 else len(names)]
        assert row["ratio"] == pytest.approx(floor["images_per_second"] / row["images_per_second"])
    assert found[0]["ratio"] == found[len(names)]["ratio"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", pytest.param("vit_b_16", marks=pytest.mark.slow)])
def test_operations_are_those_that_torchvision_publishes(name):
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]  # multiplications, in thousand millions
    model = load_model(name, weights="random").prepared(torch.device("cpu"), "fp32")
    assert flops_of_window(model) / 2e9 == pytest.approx(published, abs=2e-3)


@pytest.mark.slow
def test_stages_are_all_there(config):
    items, images = inputs(config)
    stages = core.measure_stages(config, items, images[:1])
    assert [row["stage"] for row in stages] == ["read", "decode", "cut", "score", "extract", "fuse", "encode", "write"]
    assert sum(row["share"] for row in stages) == pytest.approx(1)
    assert all(row["ms"] > 0 for row in stages if row["stage"] != "extract")
    assert next(row["ms"] for row in stages if row["stage"] == "score") >= 1000 * PAUSE


def test_images_are_taken_again():
    items, images = inputs(BenchmarkConfig(images=8))
    assert (len(items), len(images)) == (len(demo.images()), 8)
    assert np.array_equal(images[0], images[len(items)])


@pytest.mark.slow
def test_large_images_are_measured_as_the_job_would_explain_them():
    """The sample images have 300 to 512 pixels of height; of one scale 224 are enough."""
    config = BenchmarkConfig(num_scales=1, max_map_side=100, images=2)
    items, images = inputs(config)
    whole = [decode(Path(item.uri).read_bytes()).shape for item in items[:2]]
    assert all(min(shape[:2]) > 224 for shape in whole)
    assert [min(image.shape[:2]) for image in images] == [224, 224]
    [[explanation]] = engine(config).explain(images[:1])
    assert max(explanation.saliency.shape) == 100
    assert len(core.measure_stages(config, items, images[:1])) == 8


def test_passes_are_replayed(small_images, clock):
    sess = SESS(TINY, method="gradient", num_scales=1, pre_filter_ratio=0.5, device="cpu", batch_size=4)
    recorder = Recorder(sess.model)
    clock[0] = 0
    sess.explain(small_images[:1])
    recorder.stop()
    assert [(shape[0], backward) for shape, backward in recorder.passes] == [(4, False), (4, False), (4, True)]
    assert recorder.replay(sess) == pytest.approx(3 * PAUSE)
    assert clock[0] == pytest.approx(2 * 3 * PAUSE)


def result(**rows):
    return {"config": {"model": "tiny", "method": "gradcam"}, "machine": "2 CPU threads", **rows}


def job(seconds, ratio):
    names = ("images_per_second", "windows_per_second", "busy_share", "actor_peak_mib")
    return {"actors": 2, "images": 10, "seconds_to_first_rows": seconds, "ratio": ratio, **dict.fromkeys(names, 0.5)}


def test_tables_and_comparison(tmp_path, capsys):
    from sess_ray.cli import benchmark

    paths = [str(tmp_path / name) for name in ("before.json", "after.json")]
    for path, seconds in zip(paths, (8.0, 4.0), strict=True):
        report.store(result(jobs=[job(seconds, 1.25)]), path)
    assert (
        "| 2       | 10     | 8.0             | 0.500    | 0.5       | 1.250   | 50.0% | 0        |"
        in report.tables(json.loads((tmp_path / "before.json").read_text()))
    )
    assert benchmark.benchmark(BenchmarkConfig(compare=(paths[0], paths[1]))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "before" in lines[0]
    assert "after" in lines[0]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["jobs: 2, 10: s to first rows", "8", "4", "0.500"]
    with pytest.raises(SessError, match=r"cannot read the benchmark '.*none.json': .*No such file"):
        report.compare(paths[0], str(tmp_path / "none.json"))
    report.store(result(methods=[]), paths[1])
    with pytest.raises(SessError, match="no figure in common"):
        report.compare(*paths)


@pytest.mark.slow
def test_a_picture_is_drawn(small_images, tmp_path):
    pytest.importorskip("matplotlib")
    rows = core.measure_core(BenchmarkConfig(model=TINY, num_scales=1, ratios=(0.5,), targets=1), small_images[:1])
    report.store(result(core=rows, stages=[{"stage": "read", "ms": 1.0, "share": 1.0}]), str(tmp_path / "figures.json"))
    assert (tmp_path / "figures.png").stat().st_size > 10_000
