"""The whole job in one Ray session: real images and odd ones in, Parquet out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sess_ray import SESS, load_model, methods, open_run
from sess_ray.access import Access
from sess_ray.io.decode import shrunk
from sess_ray.io.maps import decode_map
from sess_ray.io.store import MAPS
from sess_ray.pipeline.cluster.session import pool
from sess_ray.pipeline.explain.actor import ExplainActor
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run, stream
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.explain.stages import TASKS, read_and_decode
from tests import nets
from tests.fragile import Fragile

pytestmark = pytest.mark.usefixtures("ray_session")


def explain(**settings):
    config = ExplainConfig(**{"num_scales": 2, "actors": "1", **settings})  # each actor imports torch for seconds
    return run(prepare(config))


def rows(output, folder="maps"):
    paths = sorted(Path(output, folder).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def good(tmp_path_factory, photographs):
    """Four photographs in two folders named by their classes."""
    root = tmp_path_factory.mktemp("good")
    for name, label in (("chelsea.png", "tabby"), ("coffee.png", "espresso"), ("rocket.jpg", "missile")):
        (root / label).mkdir()
        Image.fromarray(photographs[name]).resize((320, 240)).save(root / label / Path(name).with_suffix(".jpg"))
    return root


@pytest.fixture(scope="module")
def explained(good, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "run"
    summary = explain(input=str(good), output=str(output), targets="label", overlays=2)
    return output, summary


def test_every_image_has_its_row(explained, good):
    output, summary = explained
    found = rows(output)
    assert {row["image_id"]: row["target_name"] for row in found} == {
        "tabby/chelsea.jpg": "tabby",
        "espresso/coffee.jpg": "espresso",
        "missile/rocket.jpg": "missile",
    }
    assert (summary.images, summary.maps, summary.errors) == (3, 3, 0)
    assert {row["uri"] for row in found} == {str(path) for path in good.rglob("*.jpg")}


def test_random_numbers_and_guided_windows_do_not_depend_on_the_actors(good, tmp_path):
    model = "tests.fragile:model"
    guided = {"windows": "guided", "whole_scales": 1, "window_share": 0.5, "seed": 3}
    sess = SESS(load_model(model), "smoothgrad", num_scales=2, device="cpu", method_options={"samples": 2}, **guided)
    settings = {"model": model, "method": "smoothgrad", "method_option": ("samples=2",), "overlays": 0, **guided}
    for actors in ("1", "2"):
        output = tmp_path / actors
        summary = explain(input=str(good), output=str(output), actors=actors, **settings)
        assert summary.windows == sum(row["num_scored"] for row in rows(output)) == 2 * (2 + 2)
        for row in rows(output):
            assert row["num_patches"] == 2 + 4
            pixels = np.asarray(Image.open(good / row["image_id"]).convert("RGB"))
            [[expected]] = sess.explain([pixels], [[row["target"]]])
            np.testing.assert_allclose(decode_map(row["saliency"]["bytes"]), expected.saliency, atol=0.5 / 255 + 1e-5)


def test_a_method_of_ones_own_travels_to_the_actors(good, tmp_path):
    @methods.register("brightness of this test")
    def brightness(_model, patches, _targets):
        return patches.mean(1)

    for number, method in enumerate(("brightness of this test", "tests.fragile:brightness")):
        settings = {"method": method, "model": "tests.fragile:model", "overlays": 0}
        summary = explain(input=str(good), output=str(tmp_path / str(number)), **settings)
        assert (summary.maps, summary.errors) == (2, 1)  # the rocket, which this model never explains
    first, second = (sorted(rows(tmp_path / name), key=lambda row: row["image_id"]) for name in "01")
    assert [row["saliency"] for row in first] == [row["saliency"] for row in second]
    assert {row["method"] for row in second} == {"tests.fragile:brightness"}
    methods.registry._METHODS.pop("brightness of this test")


def test_the_maps_are_the_librarys(explained, good, lite0):
    output, _ = explained
    sess = SESS(lite0, num_scales=2, device="cpu")
    for row in rows(output):
        pixels = np.asarray(Image.open(good / row["image_id"]).convert("RGB"))
        [[expected]] = sess.explain([pixels], [[row["target"]]])
        stored = decode_map(row["saliency"]["bytes"])
        np.testing.assert_allclose(stored, expected.saliency, atol=0.5 / 255 + 1e-4)
        assert (row["height"], row["width"]) == stored.shape == (240, 320)
        assert row["score"] == pytest.approx(expected.score, abs=1e-4)
        assert row["num_patches"] == row["num_scored"] == expected.num_patches
        assert row["num_kept"] == expected.num_kept
        assert (row["predicted"], row["method"]) == (expected.predicted, "gradcam")
        assert expected.saliency[row["peak_y"], row["peak_x"]] == pytest.approx(1, abs=1e-4)


def test_large_images_are_explained_and_stored_smaller_and_read_at_their_size(good, tmp_path):
    model, side = "tests.fragile:model", 100
    settings = {"model": model, "method": "tests.fragile:brightness", "overlays": 1, "max_map_side": side}
    settings |= {"num_scales": 0}  # of which 224 pixels are enough
    summary = explain(input=str(good), output=str(tmp_path / "out"), **settings)
    assert summary.maps == 2
    sess = SESS(load_model(model), "tests.fragile:brightness", num_scales=None, max_map_side=side, device="cpu")
    for found in open_run(str(tmp_path / "out")):
        pixels, size = shrunk(Path(found.uri).read_bytes(), needed=(224, side))
        assert (size, pixels.shape) == ((240, 320), (224, 299, 3))
        [[expected]] = sess.explain([pixels], [[found.target]])
        stored = decode_map(found.png)
        assert stored.shape == (75, 100)
        np.testing.assert_allclose(stored, expected.saliency, atol=0.5 / 255 + 1e-5)
        x, y = expected.peak
        assert (found.peak_x, found.peak_y) == (int(3.2 * (x + 0.5)), int(3.2 * (y + 0.5)))
        assert found.image().shape[:2] == found.saliency.shape == (found.height, found.width) == (240, 320)
        assert found.saliency[found.peak_y, found.peak_x] > 0.95


def test_plain_types_open_in_everything(explained):
    import duckdb
    import pandas as pd

    output, _ = explained
    [path, *_] = Path(output, "maps").glob("*.parquet")
    schema = pq.read_schema(path)
    assert schema.names == MAPS.names
    assert not [field for field in schema if field.type.id == 31]  # extension types
    frame = pd.read_parquet(output / "maps")
    assert len(frame) == 3
    assert Image.open(io.BytesIO(frame["saliency"][0]["bytes"])).mode == "L"
    query = f"select image_id, octet_length(saliency.bytes) from '{output}/maps/*.parquet' where score > 0 order by 1"
    assert [name for name, size in duckdb.sql(query).fetchall() if size > 100] == sorted(frame["image_id"])


def test_run_json_and_pictures(explained):
    output, summary = explained
    record = json.loads((output / "run.json").read_text())
    assert record["config"]["targets"] == "label"
    assert record["config"]["num_scales"] == 2
    assert (record["config"]["pre_filter_ratio"], record["pre_filter_ratio"], record["share_kept"]) == (None, 0, 1)
    assert (record["config"]["fade"], record["fade"]) == (None, 0)
    assert len(record["model"]["weights_sha256"]) == 64
    assert record["counts"] == {"inputs": 3, "images": 3, "maps": 3, "errors": 0}
    windows = sum(row["num_patches"] for row in rows(output))
    assert record["this_run"] == {"images": 3, "maps": 3, "errors": 0, "windows": windows}
    assert record["versions"]["torch"]
    assert len(summary.overlays) == 2
    for name in summary.overlays:
        assert Image.open(output / name).width > 600


def test_an_output_is_replaced_on_request(explained, good):
    output, _ = explained
    settings = {"input": str(good), "output": str(output), "targets": "label"}
    (output / "mine.txt").write_text("not the job's")
    before = {row["image_id"]: row["saliency"]["bytes"] for row in rows(output)}
    explain(**settings, overwrite=True)
    assert {row["image_id"]: row["saliency"]["bytes"] for row in rows(output)} == before
    assert (output / "mine.txt").exists()


@pytest.fixture
def mixed(tmp_path, photographs):
    root = tmp_path / "mixed"
    root.mkdir()
    coffee = Image.fromarray(photographs["coffee.png"]).resize((300, 200))
    coffee.save(root / "good.jpg")
    coffee.convert("CMYK").save(root / "cmyk.jpg")
    coffee.save(root / "animated.gif", save_all=True, append_images=[coffee.rotate(90)])
    Image.fromarray(np.asarray(coffee.convert("L"), np.uint16) * 257).save(root / "16-bit.png")
    Image.new("RGB", (1, 1), "red").save(root / "1x1.png")
    Image.new("RGB", (20_000, 30), "red").save(root / "20000x30.png")
    Image.new("1", (20_000, 20_000)).save(root / "bomb.png")
    (root / "text.jpg").write_text("I am a text")
    (root / "zero.jpg").write_bytes(b"")
    content = (root / "good.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (root / 'odd "name"\n<b>.jpg').write_bytes(content)
    (root / "[good].jpg").write_bytes(content)
    return root


def test_bad_input_never_costs_good_input(mixed, tmp_path):
    output = tmp_path / "out"
    summary = explain(input=str(mixed), output=str(output), model="tests.fragile:model", max_patches=500)
    assert {row["image_id"] for row in rows(output)} == {
        "good.jpg",
        "cmyk.jpg",
        "animated.gif",
        "16-bit.png",
        "1x1.png",
        'odd "name"\n<b>.jpg',
        "[good].jpg",
    }
    errors = {row["image_id"]: (row["stage"], row["error"]) for row in rows(output, "errors")}
    expected = {
        "20000x30.png": ("plan", "20000 x 30 pixels"),
        "bomb.png": ("decode", "pixels"),
        "text.jpg": ("decode", "not an image"),
        "zero.jpg": ("decode", "the file is empty"),
        "truncated.jpg": ("decode", "truncated"),
    }
    assert errors.keys() == expected.keys()
    for name, (stage, reason) in expected.items():
        assert errors[name][0] == stage
        assert reason in errors[name][1]
    assert (summary.images, summary.errors) == (7, 5)


def test_a_manifest_with_targets_bad_classes_and_missing_images(good, tmp_path):
    lines = [
        {"uri": str(good / "tabby/chelsea.jpg"), "id": "cat", "targets": ["tabby", 285]},
        {"uri": str(good / "espresso/coffee.jpg"), "id": "cup", "targets": ["no such thing"]},
        {"uri": str(good / "gone.jpg"), "id": "gone", "targets": [1]},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    output = tmp_path / "out"
    explain(input=str(tmp_path / "m.jsonl"), output=str(output), actors="1")
    assert {(row["image_id"], row["target"]) for row in rows(output)} == {("cat", 281), ("cat", 285)}
    errors = {row["image_id"]: row for row in rows(output, "errors")}
    assert errors["cup"]["stage"] == "targets"
    assert "unknown class 'no such thing'" in errors["cup"]["error"]
    assert errors["gone"]["stage"] == "read"
    assert "FileNotFoundError" in errors["gone"]["error"]


def test_one_image_that_fails_in_the_model_costs_only_itself(ray_session, good):
    paths = sorted(str(path) for path in good.rglob("*.jpg"))
    tasks = [{"image_id": str(i), "uri": path, "targets": [[1]]} for i, path in enumerate(paths)]
    block = pa.concat_tables(read_and_decode(pa.Table.from_pylist(tasks, TASKS), Access(), 10**8))
    actor = ExplainActor(ray_session.put(load_model("tests.fragile:model")), {"num_scales": 1, "device": "cpu"})
    found = pa.concat_tables(actor(block)).to_pylist()
    assert {row["image_id"]: row["error"] for row in found} == {
        "0": None,
        "1": "RuntimeError: this image is too much",
        "2": None,
    }
    assert [row["stage"] for row in found if row["error"]] == ["explain"]


def test_little_more_than_an_image_and_its_maps_moves_between_processes(ray_session, good):
    """Counted in bytes of the object store; windows would be a hundred times as many."""
    uris = sorted(map(str, good.rglob("*.jpg")))
    tasks = pa.Table.from_pylist([{"image_id": uri, "uri": uri, "targets": [[1], [0]]} for uri in uris], TASKS)
    decoded = pa.concat_tables(read_and_decode(tasks, Access(), 10**8))
    pixels = 3 * 240 * 320
    assert len(uris) * pixels < decoded.nbytes < len(uris) * (pixels + 2048)
    actor = ExplainActor(ray_session.put(load_model(nets.Small(), input_size=64)), {"num_scales": 12})
    explained = pa.concat_tables(actor(decoded))
    assert explained["error"].null_count == len(uris)
    assert sum(explained["num_patches"].to_pylist()) > 500
    assert len(uris) * 2 * 240 * 320 < explained.nbytes < len(uris) * (2 * 240 * 320 + 2048)


@pytest.mark.parametrize("fits", [5, 2, 1, 0])
def test_where_memory_ends_batches_get_smaller_and_the_rest_is_explained(ray_session, good, monkeypatch, fits):
    """A device that holds `fits` windows: the maps are those of any other batch, or the image alone has the error."""
    path = str(next(good.rglob("coffee.jpg")))
    tasks = pa.Table.from_pylist([{"image_id": "0", "uri": path, "targets": [[1]]}], TASKS)
    block = pa.concat_tables(read_and_decode(tasks, Access(), 10**8))
    options = {"num_scales": 3, "device": "cpu", "batch_size": 4, "pre_filter_ratio": 0.5}
    actor = ExplainActor(ray_session.put(load_model("tests.fragile:model")), options)
    [expected] = pa.concat_tables(actor(block)).to_pylist()
    whole = Fragile.forward

    def forward(module, x):
        if len(x) > fits:
            raise torch.OutOfMemoryError("no memory for so many")
        return whole(module, x)

    monkeypatch.setattr(Fragile, "forward", forward)
    [found] = pa.concat_tables(actor(block)).to_pylist()
    if not fits:
        assert (found["stage"], found["error"]) == ("explain", "OutOfMemoryError: no memory for so many")
        return
    [given], [wanted] = found["maps"], expected["maps"]
    levels = [np.frombuffer(row["levels"], np.uint8).astype(int) for row in (given, wanted)]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    assert given["num_kept"] == wanted["num_kept"]


def test_an_actor_that_can_not_start_is_tried_again(good, tmp_path, monkeypatch):
    monkeypatch.setenv("SESS_RAY_TEST_FLAG", str(tmp_path / "flag"))
    output = tmp_path / "out"
    summary = explain(input=str(good), output=str(output), model="tests.fragile:slow_to_start", actors="1", overlays=0)
    assert (tmp_path / "flag").exists()
    assert (summary.images, summary.errors) == (2, 1)  # the rocket, which this model never explains


def test_what_is_written_is_told_before_the_next_is(good, tmp_path):
    method = {"method": "tests.fragile:signed", "method_option": (f"folder={tmp_path}",), "pre_filter_ratio": 0.0}
    settings = {"input": str(good), "output": str(tmp_path / "out"), "model": "tests.faults.tiny:model"}
    told = 0
    for counts in stream(prepare(ExplainConfig(**settings, **method, num_scales=2, actors="1", overlays=0))):
        told += counts["maps"]
        assert len(rows(tmp_path / "out")) == told
    assert told == 3


def test_one_actor_starts_when_the_others_are_at_work(good, tmp_path):
    """On CPUs, where all that start at the same time wait for one another; with GPUs all start at once."""
    signatures = tmp_path / "signatures"
    signatures.mkdir()
    image = {"uri": str(good / "tabby/chelsea.jpg"), "target": 1}
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps({**image, "id": str(i)}) for i in range(500)))
    method = {"method": "tests.fragile:signed", "method_option": (f"folder={signatures}",)}
    settings = {"input": str(tmp_path / "m.jsonl"), "output": str(tmp_path / "out"), "model": "tests.fragile:model"}
    counts = stream(prepare(ExplainConfig(**settings, **method, num_scales=1, actors="2", overlays=0)))
    next(counts)
    assert len(list(signatures.iterdir())) == 1
    assert any(len(list(signatures.iterdir())) == 2 for _ in counts)
    counts.close()


@pytest.mark.parametrize(
    ("gpus", "address", "first"), [(0.0, None, 3), (1.0, None, 4), (0.0, "auto", 4), (1.0, "auto", 4)]
)
def test_actors_that_do_not_share_cores_start_together(monkeypatch, gpus, address, first):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 6, "GPU": 4 * gpus})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    compute = pool(None, None, 100, address)["compute"]
    assert (compute.min_size, compute.max_size) == (first, 4)


def test_a_job_does_not_explain_its_own_pictures(good, tmp_path, monkeypatch):
    place = tmp_path / "in"
    place.mkdir()
    (place / "1.jpg").write_bytes((good / "tabby" / "chelsea.jpg").read_bytes())
    monkeypatch.chdir(place)
    for _ in range(2):
        summary = explain(input=".", output="out", model="tests.fragile:model", num_scales=1, overlays=1)
        assert summary.total.images == 1
        assert len(list((place / "out" / "overlays").iterdir())) == 1


def test_no_name_leaves_the_output(good, tmp_path):
    names = ["../../escape.jpg", "/etc/passwd", 'a"><img src=x onerror=alert(1)>.jpg', "line\nbreak", ".."]
    lines = [{"uri": str(good / "tabby/chelsea.jpg"), "id": name} for name in names]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    output = tmp_path / "out"
    explain(input=str(tmp_path / "m.jsonl"), output=str(output), model="tests.fragile:model", actors="1", overlays=9)
    assert {row["image_id"] for row in rows(output)} == set(names)
    assert {path.name for path in output.iterdir()} == {"started.json", "run.json", "maps", "overlays"}
    pictures = [path.name for path in (output / "overlays").iterdir()]
    assert len(pictures) == len(names)
    assert all(name.removesuffix(".png").replace("-", "").replace("_", "").isalnum() for name in pictures)
    assert {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents} == before
