"""Reading back: our own way, and what other packages make of the files."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import sess_ray
from sess_ray import MapDataset, SessError, open_run
from sess_ray.io.maps import encode_map, quantize
from sess_ray.io.pieces import piece
from sess_ray.io.store import ERRORS, MAPS, Store

SIDES = [(30, 40), (24, 24), (50, 20), (33, 47), (21, 64)]


@pytest.fixture(scope="module")
def levels():
    """The maps of two targets of each image, (H, W) uint8; seed 5."""
    draw = np.random.default_rng(5)
    return {(f"{place}.png", target): draw.integers(0, 256, side, np.uint8)
            for place, side in enumerate(SIDES) for target in (281, 967)}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images whose red says which they are; the last one lies on its side, and its EXIF says so."""
    folder = tmp_path_factory.mktemp("images")
    for place, (height, width) in enumerate(SIDES):
        pixels = np.full((height, width, 3), (40 * place, 7, 9), np.uint8)
        pixels[0, 0] = 255
        picture, exif = Image.fromarray(pixels), Image.Exif()
        if place == len(SIDES) - 1:
            picture = picture.rotate(90, expand=True)
            exif[0x0112] = 6  # turn it clockwise to see it
        picture.save(folder / f"{place}.png", exif=exif)
    return folder


@pytest.fixture(scope="module")
def output(images, levels, tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("run") / "out"))
    facts = {"target_name": "a, b", "score": 0.5, "predicted": 281, "predicted_score": 0.75, "num_patches": 9}
    facts |= {"num_scored": 5, "num_kept": 3, "peak_x": 1, "peak_y": 2, "method": "gradcam", "model": "m"}
    rows = [
        {**facts, "image_id": name, "uri": str(images / name), "target": target, "height": len(found)}
        | {"width": found.shape[1], "saliency": {"bytes": encode_map(found), "path": None}}
        for (name, target), found in levels.items()
    ]
    for start, end in ((0, 4), (4, 6), (6, 10)):
        store.write_table("maps", pa.Table.from_pylist(rows[start:end], MAPS))
    bad = {"image_id": "bad", "uri": "bad", "stage": "decode", "error": "the file is empty"}
    store.write_table("errors", pa.Table.from_pylist([bad], ERRORS))
    store.write_json("run.json", {"counts": {"maps": len(rows)}})
    return store.url


def test_a_run_is_a_sequence_of_its_maps(output, levels):
    run = open_run(output)
    rows = list(run)
    assert len(run) == len(rows) == len(levels)
    assert {(row.image_id, row.target) for row in rows} == levels.keys()
    for number, row in enumerate(rows):
        again = run[number]
        assert (again.image_id, again.target, again.png) == (row.image_id, row.target, row.png)
        expected = levels[row.image_id, row.target] / np.float32(255)
        assert row.saliency.dtype == np.float32
        np.testing.assert_array_equal(row.saliency, expected)
        assert (row.height, row.width) == row.saliency.shape
        pixels = row.image()
        assert pixels.shape == (row.height, row.width, 3)
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[-1, -1].tolist() == [40 * int(row.image_id[0]), 7, 9]
    assert run[-1].png == rows[-1].png
    assert [row.png for row in run[2:9:3]] == [row.png for row in rows[2:9:3]]
    with pytest.raises(IndexError):
        run[len(rows)]
    assert sorted(row.target for row in run.find("3.png")) == [281, 967]
    assert run.find("x") == []
    assert run.rows.column_names == [name for name in MAPS.names if name != "saliency"]
    assert run.errors.to_pylist()[0]["error"] == "the file is empty"
    assert run.record == {"counts": {"maps": 10}}


def test_a_map_is_read_with_its_row_group_alone(output, levels, tmp_path):
    store = Store(output)
    rows = pa.concat_tables(store.read_tables(store.tables("maps")))
    path = tmp_path / "maps" / "whole.parquet"
    path.parent.mkdir()
    pq.write_table(rows, path, row_group_size=3)
    run, known = open_run(str(tmp_path)), list(open_run(output))
    assert [row.png for row in run] == [row.png for row in known]
    assert [run[number].png for number in range(-1, -len(run) - 1, -1)] == [row.png for row in known][::-1]
    place = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    damaged = open_run(str(tmp_path))
    assert (len(damaged), damaged[9].png, damaged[3].png) == (len(levels), known[9].png, known[3].png)
    with pytest.raises(SessError, match=r"is damaged \(.*\): remove it, and run again"):
        damaged[2]


def test_names_that_say_what_files_hold_are_believed(tmp_path):
    store = Store(str(tmp_path))
    for span, maps in ((0, 5), (1, 7)):
        store.write(f"maps/{piece(span, range(4), 4, maps).stem}.parquet", b"not looked at")
    assert len(open_run(store.url)) == 12


def test_an_output_without_the_number_of_scored_windows_has_scored_all(output, tmp_path):
    store, before = Store(output), Store(str(tmp_path / "before"))
    for name in store.tables("maps"):
        before.write_table("maps", store.read_table(name).drop_columns(["num_scored"]))
    run = open_run(before.url)
    assert "num_scored" not in run.rows.column_names
    assert {(row.num_scored, row.num_patches) for row in run} == {(9, 9)}
    assert {(row.num_scored, row.num_patches) for row in open_run(output)} == {(5, 9)}


def test_images_that_have_moved_are_found_and_those_that_are_gone_named(output, images, tmp_path):
    for path in images.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    run = open_run(output, images=str(tmp_path))
    assert run.find("0.png")[0].uri == str(tmp_path / "0.png")
    with pytest.raises(SessError, match="is 40 x 30 now, its map 24 x 24"):
        run.find("1.png")[0].image()
    row = run.find("2.png")[0]
    (tmp_path / "2.png").unlink()
    with pytest.raises(SessError, match=r"cannot read .*2\.png: no such file"):
        row.image()
    with pytest.raises(SessError, match="has no maps"):
        open_run(str(tmp_path))


def test_maps_train_a_model_in_workers_of_a_loader(output):
    flip = v2.Compose([v2.Resize((24, 24)), v2.RandomHorizontalFlip(p=1.0), v2.ToDtype(torch.float32, scale=True)])
    loader = torch.utils.data.DataLoader(MapDataset(output, flip), batch_size=4, num_workers=2)
    pictures, maps, targets = map(torch.cat, zip(*loader, strict=True))
    assert pictures.shape == (10, 3, 24, 24)
    assert maps.shape == (10, 1, 24, 24)
    assert pictures.max() == 1
    rows = list(open_run(output))
    assert targets.tolist() == [row.target for row in rows]
    for picture, found, row in zip(pictures, maps, rows, strict=True):
        assert picture[0, -1, 0].item() == pytest.approx(40 * int(row.image_id[0]) / 255, abs=0.01)
        if row.image_id == "1.png":  # already 24 x 24: nothing but flipped
            np.testing.assert_array_equal(found[0].numpy(), row.saliency[:, ::-1])
    untouched = MapDataset(open_run(output))
    image, saliency, target = untouched[3]
    assert (image.dtype, saliency.dtype, type(target)) == (torch.uint8, torch.float32, int)
    assert image.shape[1:] == saliency.shape[1:] == rows[3].saliency.shape


def png_levels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_pandas_polars_and_duckdb_read_the_files_as_they_are(output, levels):
    duckdb, pandas, polars = (pytest.importorskip(name) for name in ("duckdb", "pandas", "polars"))
    frames = {
        "pandas": pandas.read_parquet(f"{output}/maps").to_dict("records"),
        "polars": polars.read_parquet(f"{output}/maps/*.parquet").to_dicts(),
        "duckdb": duckdb.sql(f"select * from '{output}/maps/*.parquet'").df().to_dict("records"),
    }
    for rows in frames.values():
        assert len(rows) == len(levels)
        for row in rows:
            assert row["method"] == "gradcam"
            found = png_levels(bytes(row["saliency"]["bytes"]))
            np.testing.assert_array_equal(found, levels[row["image_id"], row["target"]])


def test_datasets_of_hugging_face_show_maps_as_images(output, levels, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = f"{output}/maps/*.parquet"
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    found = found.cast_column("saliency", datasets.Image())
    assert len(found) == len(levels)
    for row in found:
        assert isinstance(row["saliency"], Image.Image)
        np.testing.assert_array_equal(np.asarray(row["saliency"]), levels[row["image_id"], row["target"]])


def test_what_is_stored_is_what_an_explanation_was_to_half_a_level(tmp_path, squeezenet):
    pixels = np.random.default_rng(8).integers(0, 256, (70, 90, 3), np.uint8)
    [[explanation]] = sess_ray.SESS(squeezenet, num_scales=2, device="cpu").explain([pixels])
    row = {"image_id": "x", "target": 3, "height": 70, "width": 90}
    row["saliency"] = {"bytes": encode_map(quantize(explanation.saliency)), "path": None}
    store = Store(str(tmp_path / "out"))
    store.write_table("maps", pa.Table.from_pylist([row], MAPS))
    [stored] = open_run(store.url)
    assert np.abs(stored.saliency - explanation.saliency).max() <= 0.5 / 255 + 1e-7
