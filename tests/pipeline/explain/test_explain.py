"""The whole job in one Ray session: real images and odd ones in, Parquet out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sess_ray import SESS, load_model, methods, open_run
from sess_ray.io.decode import shrunk
from sess_ray.io.maps import decode_map
from sess_ray.io.store import MAPS
from tests.pipeline.explain.jobs import explain, rows

pytestmark = pytest.mark.usefixtures("ray_session")


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
    assert (record["config"]["fade"], record["fade"]) == (None, 0.1)
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
    assert "no such file" in errors["gone"]["error"]


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
