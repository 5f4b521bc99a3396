"""The stages on a Ray Dataset of the user's own: what ray.data reads in, rows of maps out."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray.data.extensions import ArrowTensorArray

import sess_ray.data
from sess_ray import SESS, SessError, load_model
from sess_ray.engine.targets import checked
from sess_ray.io.maps import decode_map, quantize
from sess_ray.io.store import MAPS
from sess_ray.pipeline.explain.cells import _lost, as_maps, decode_cells
from sess_ray.pipeline.explain.stages import targets_of

DOCS = Path(__file__).parents[1] / "docs"
MODEL = "tests.fragile:model"
FEW = {"num_scales": 1, "concurrency": 1}

pytestmark = pytest.mark.usefixtures("ray_session")


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pixels():
    """Three images of two sizes."""
    rng = np.random.default_rng(7)
    sizes = ((240, 320), (240, 320), (300, 250))
    return [rng.integers(80, 255, (*size, 3), np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pixels):
    place = tmp_path_factory.mktemp("images")
    for number, image in enumerate(pixels):
        (place / f"{number}.png").write_bytes(encoded(image))
    return place


def expected(pixels, targets="top1", **settings):
    """The maps of the engine alone."""
    sess = SESS(load_model(MODEL), device="cpu", num_scales=1, **settings)
    return [
        [(found.target, quantize(found.saliency)) for found in image] for image in sess.explain(list(pixels), targets)
    ]


def levels(row):
    return quantize(decode_map(row["saliency"]["bytes"], (row["height"], row["width"])))


def assert_maps(rows, pixels, targets="top1", **settings):
    wanted = [entry for image in expected(pixels, targets, **settings) for entry in image]
    assert len(rows) == len(wanted)
    for row, (target, saliency) in zip(rows, wanted, strict=True):
        assert row["error"] is None
        assert row["target"] == target
        np.testing.assert_array_equal(levels(row), saliency)


def test_images_that_ray_has_read(ray_session, folder, pixels):
    images = ray_session.data.read_images(str(folder), mode="RGB", include_paths=True)
    maps = sess_ray.data.explain(images, MODEL, targets="top2", **FEW)
    rows = sorted(maps.take_all(), key=lambda row: row["path"])
    assert_maps(rows, pixels, "top2")
    assert [row["image_id"] for row in rows] == [row["path"] for row in rows] == [row["uri"] for row in rows]
    assert list(rows[0]) == [*MAPS.names, "error", "path"]
    assert {row["method"] for row in rows} == {"gradcam"}
    assert {row["model"] for row in rows} == {MODEL}


def test_the_example_in_the_docs_runs(folder, tmp_path):
    fenced = re.compile(r"^```python\n(.*?sess_ray\.data.*?)^```", re.MULTILINE | re.DOTALL)
    [block] = fenced.findall((DOCS / "running.md").read_text())
    for name, place in (("images", folder), ("maps", tmp_path / "maps")):  # Ray runs in another folder
        assert f'"{name}"' in block
        block = block.replace(f'"{name}"', repr(str(place)))
    exec(compile(block, "running.md", "exec"), {})
    stored = pq.read_table(tmp_path / "maps")
    assert stored.num_rows == 2 * 3
    assert stored["error"].null_count == 2 * 3
    assert stored.schema.field("saliency").type == MAPS.field("saliency").type


def test_it_is_lazy_and_its_schema_is_that_of_maps(ray_session, folder):
    def boom(_table):
        raise AssertionError("it has run")

    images = ray_session.data.read_images(str(folder), mode="RGB").map_batches(boom, batch_format="pyarrow")
    maps = sess_ray.data.explain(images, MODEL, **FEW)
    with pytest.raises(Exception, match="it has run"):
        maps.take_all()


def test_parquet_in_the_layout_of_hugging_face_keeps_the_other_columns(ray_session, tmp_path, folder, pixels):
    cells = [{"bytes": encoded(image), "path": f"{n}.png"} for n, image in enumerate(pixels)]
    cells += [{"bytes": None, "path": str(folder / "2.png")}, {"bytes": b"no image", "path": "bad.png"}, None]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = len(cells)
    table = pa.table(
        {
            "image": pa.array(cells, kind),
            "label": [0, 2, 1, 1, 1, 1],
            "caption": [f"caption {n}" for n in range(rows)],
            "when": pa.array(range(rows), pa.timestamp("ms")),
            "boxes": [[1.5, float(n)] for n in range(rows)],
            "empty": pa.array([None] * rows, pa.string()),
        }
    )
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2)
    found = sess_ray.data.explain(
        ray_session.data.read_parquet(str(tmp_path / "train.parquet")), MODEL, target_column="label", **FEW
    ).materialize()
    rows = sorted(found.take_all(), key=lambda row: row["caption"])
    assert_maps(rows[:4], [*pixels, pixels[2]], [[0], [2], [1], [1]])
    assert [row["uri"] for row in rows[:3]] == ["0.png", "1.png", "2.png"]
    assert [row["label"] for row in rows] == [0, 2, 1, 1, 1, 1]
    assert [list(row["boxes"]) for row in rows] == [[1.5, float(n)] for n in range(6)]
    assert [row["error"] for row in rows[4:]] == [
        "decode: not an image, or of a kind that Pillow does not read",
        "decode: the row has no image",
    ]
    assert rows[4]["saliency"] is None
    assert rows[4]["uri"] == "bad.png"
    out = tmp_path / "maps"
    found.write_parquet(str(out))
    stored = pa.concat_tables([pq.read_table(path) for path in sorted(out.iterdir())])
    assert stored.schema.field("when").type == table.schema.field("when").type
    assert stored.schema.field("boxes").type.value_type == pa.float64()
    assert "image" not in stored.column_names


def decoded(column, target="top1", **columns):
    """What the first stage makes of a column, without Ray."""
    table = pa.table({"image": column, **columns})
    target_column = "want" if "want" in columns else None
    found = decode_cells(table, "image", target_column, target, 10**6, None)
    return [row for block in found for row in block.to_pylist()]


@pytest.mark.parametrize(
    ("want", "found"),
    [
        ([3], [(3,)]),
        ([[3, 5]], [(3,), (5,)]),
        ([["7", "hen", "cock"]], [(7,), (8,), (7,)]),
        (["hen"], [(8,)]),
        (["top2"], "top2"),
        ([np.int8(4)], [(4,)]),
    ],
)
def test_targets_may_be_indices_names_and_ranks(pixels, want, found):
    [row] = decoded([encoded(pixels[0])], want=want)
    model = load_model("squeezenet1_1", "random")
    assert checked(targets_of(row, model), model) == found


def test_targets_that_are_none(ray_session, pixels):
    [row] = decoded([encoded(pixels[0])], want=pa.array([None], pa.string()))
    assert (row["stage"], row["error"]) == ("targets", "the row has no target in column 'want'")
    table = pa.table({"image": [encoded(pixels[0])] * 2, "id": [1, 2], "want": ["hen", "unicorn"]})
    model = load_model("squeezenet1_1", "random")
    found = sess_ray.data.explain(ray_session.data.from_arrow(table), model, target_column="want", **FEW).take_all()
    assert {row["image_id"]: row["target"] for row in found} == {"1": 8, "2": None}
    [error] = [row["error"] for row in found if row["error"]]
    assert error.startswith("targets: unknown class 'unicorn'")


def test_web_dataset_with_and_without_its_decoder(ray_session, tmp_path, pixels):
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w") as shard:
        for number, image in enumerate(pixels):
            for kind, content in (("png", encoded(image)), ("cls", str(number % 2).encode())):
                info = tarfile.TarInfo(f"{number:03}.{kind}")
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    for decoder in (True, None):
        images = ray_session.data.read_webdataset(str(path), decoder=decoder)
        if decoder is None:
            images = images.map(lambda row: {**row, "cls": int(row["cls"])})
        found = sess_ray.data.explain(images, MODEL, "png", "cls", **FEW).take_all()
        rows = sorted(found, key=lambda row: row["__key__"])
        assert_maps(rows, pixels, [[0], [1], [0]])
        assert [row["image_id"] for row in rows] == ["000", "001", "002"]


def test_arrays_of_any_channels_and_what_is_no_image(pixels):
    image = pixels[0]
    grey = np.dstack([image[..., 0]] * 3)
    clear = np.dstack([image, np.zeros((240, 320), np.uint8)])
    for given, shown in (
        (image, image),
        (image[..., 0], grey),
        (image[..., :1], grey),
        (np.dstack([image, np.full((240, 320), 255, np.uint8)]), image),
        (clear, np.full_like(image, 255)),
    ):
        [row] = decoded(ArrowTensorArray.from_numpy(given[None]))
        np.testing.assert_array_equal(np.frombuffer(row["pixels"], np.uint8).reshape(240, 320, 3), shown)
    for given, error in (
        (image / 255, "the image is float64 (240, 320, 3): give uint8 (H, W, 3), (H, W, 4) or (H, W)"),
        (image[..., :2], "the image is uint8 (240, 320, 2): give uint8 (H, W, 3), (H, W, 4) or (H, W)"),
        (np.zeros((1001, 1000), np.uint8), "the image has 1000 x 1001 pixels, more than the 1000000 allowed by"),
    ):
        [row] = decoded(ArrowTensorArray.from_numpy(given[None]))
        assert (row["stage"], row["error"][: len(error)]) == ("decode", error)
    rows = decoded(["nowhere.png", "also/nowhere.jpg"])
    assert [row["error"].partition(":")[0] for row in rows] == ["no such file"] * 2
    assert [row["uri"] for row in rows] == ["nowhere.png", "also/nowhere.jpg"]
    assert decoded([1.5])[0]["error"] == "the image is float: give (H, W, 3) uint8, the bytes of a file, or a path"


def test_an_image_that_kills_its_worker_keeps_its_row():
    table = pa.table({"image": [b"x"], "id": [7], "caption": ["a cat"]})
    [row] = pa.concat_tables(as_maps(_lost(table, "image"), "gradcam", "model")).to_pylist()
    assert (row["image_id"], row["id"], row["caption"], row["saliency"]) == ("7", 7, "a cat", None)
    assert row["error"].startswith("decode: every worker died of it")


def test_settings_are_those_of_the_engine(ray_session, folder, pixels):
    images = ray_session.data.read_images(str(folder), mode="RGB", include_paths=True)
    settings = {"pre_filter_ratio": 0.5, "smooth": False, "max_map_side": 64, "batch_size": 3}
    maps = sess_ray.data.explain(images, load_model(MODEL).module, targets=[1], **settings, **FEW)
    rows = sorted(maps.take_all(), key=lambda row: row["path"])
    for row, [(target, saliency)] in zip(rows, expected(pixels, [[1]] * 3, **settings), strict=True):
        assert (row["target"], row["height"], row["width"]) == (target, *pixels[int(row["path"][-5])].shape[:2])
        np.testing.assert_array_equal(quantize(decode_map(row["saliency"]["bytes"])), saliency)


def test_what_is_wrong_is_said_before_anything_runs(ray_session):
    images = ray_session.data.from_arrow(pa.table({"image": [b"x"], "score": [1.0], "kind": [1]}))
    with pytest.raises(SessError, match=r"columns score are those of maps: rename them"):
        sess_ray.data.explain(images, MODEL, **FEW)
    images = images.drop_columns(["score"])
    for wrong, message in (
        ({"method": "gradcm"}, "unknown method 'gradcm'"),
        ({"fusion": "mean"}, "unknown fusion 'mean'"),
        ({"targets": [5000]}, "class 5000 is out of range"),
        ({"targets": "best"}, "targets 'best'"),
    ):
        with pytest.raises(SessError, match=message):
            sess_ray.data.explain(images, MODEL, **FEW | wrong)
    table = pa.table({"photo": [b"x"]})
    with pytest.raises(SessError, match=r"no column 'image'; it has: photo"):
        sess_ray.data.explain(ray_session.data.from_arrow(table), MODEL, **FEW)
