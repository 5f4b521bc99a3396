from __future__ import annotations

import csv
import io
import json
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sess_ray import SessError
from sess_ray.io.decode import decode, enough, shrunk
from sess_ray.io.inputs import find_images, list_images
from sess_ray.io.maps import decode_map, encode_map, quantize
from sess_ray.io.reading import read_items
from sess_ray.io.store import Store


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


RED = (200, 30, 40)


def half_red(mode="RGB", size=(6, 4)):
    """Left half red, right half white."""
    image = Image.new("RGB", size, "white")
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image.quantize(4) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colour_modes(mode):
    pixels = decode(encoded(half_red(mode)))
    assert pixels.shape == (4, 6, 3)
    assert tuple(pixels[0, 0].astype(int)) == pytest.approx(RED, abs=3)
    assert pixels[0, 5].tolist() == [255, 255, 255]


def test_cmyk_jpeg():
    pixels = decode(encoded(half_red("CMYK", (64, 32)), "JPEG", quality=95))
    assert tuple(pixels[16, 8].astype(int)) == pytest.approx(RED, abs=12)
    assert pixels[16, 60].min() > 245


def test_grey_is_spread_over_three_channels():
    pixels = decode(encoded(Image.fromarray(np.array([[0, 128, 255]], np.uint8))))
    assert pixels.tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_16_bit_grey_keeps_its_upper_bits():
    levels = np.array([[0, 128 * 257, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encoded(Image.fromarray(levels), kind))[0, :, 0].tolist() == [0, 128, 255]


def test_what_is_transparent_is_shown_on_white():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (*RED, 255))
    assert decode(encoded(image)).tolist() == [[[255] * 3, list(RED)]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, *RED])
    palette.putpixel((1, 0), 1)
    assert decode(encoded(palette, transparency=0)).tolist() == [[[255] * 3, list(RED)]]


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    pixels = decode(encoded(half_red(size=(64, 32)), "JPEG", exif=exif, quality=95))
    assert pixels.shape == (64, 32, 3)
    assert tuple(pixels[5, 16].astype(int)) == pytest.approx(RED, abs=12)
    assert pixels[60, 16].min() > 245


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, "blue")]
    pixels = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert tuple(pixels[0, 0].astype(int)) == pytest.approx(RED, abs=3)


def test_what_is_no_image_is_refused_with_a_reason():
    photograph = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(photograph), "JPEG")
    for content, message in (
        (b"", "the file is empty"),
        (b"hello, I am a text", "not an image"),
        (jpeg[: len(jpeg) // 2], "broken image: OSError: .*truncated"),
        (jpeg[:30], "not an image|broken image"),
    ):
        with pytest.raises(SessError, match=message):
            decode(content)
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 100_000
    with pytest.raises(SessError, match=r"400000000|more than the 100000000 pixels|20000 x 20000"):
        decode(bomb)
    with pytest.raises(SessError, match="300 x 200 pixels, more than the 1000"):
        decode(jpeg, max_pixels=1000)


@pytest.mark.parametrize(
    ("size", "needed", "expected"),
    [
        ((300, 400), None, (300, 400)),
        ((300, 400), (300, 1), (300, 400)),
        ((300, 400), (1, 401), (300, 400)),
        ((300, 400), (150, 100), (150, 200)),
        ((400, 300), (150, 100), (200, 150)),
        ((300, 400), (150, 320), (240, 320)),
        ((5, 4000), (1, 100), (1, 800)),
    ],
)
def test_an_image_is_shrunk_as_far_as_both_sides_keep_what_is_needed(size, needed, expected):
    assert enough(*size, needed) == expected


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("longer", [37, 128, 200, 317])
def test_a_shrunk_image_shows_the_same_upright(photographs, kind, orientation, longer):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: turn it clockwise to see it
    picture = Image.fromarray(photographs["coffee.png"]).resize((317, 211))
    lying = picture if orientation == 1 else picture.rotate(90, expand=True)
    content = encoded(lying, kind, exif=exif, **({"quality": 98} if kind == "JPEG" else {}))
    pixels, size = shrunk(content, needed=(1, longer))
    assert size == (211, 317)
    assert pixels.shape == (round(211 * longer / 317), longer, 3)
    whole = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].double()
    wanted = F.interpolate(whole, pixels.shape[:2], mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    # A JPEG is shrunk twice, first without overlap; where its last blocks end half way, that must not shift the rest.
    assert np.abs(pixels - wanted).mean() < (0.5 if kind == "PNG" else 3)


def test_a_map_that_is_stored_smaller_is_enlarged_where_it_is_read():
    levels = np.random.default_rng(4).integers(0, 256, (12, 16), dtype=np.uint8)
    png = encode_map(levels)
    small = torch.from_numpy(levels)[None, None].double() / 255
    expected = F.interpolate(small, (45, 60), mode="bilinear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(decode_map(png, (45, 60)), expected, atol=1e-6)
    np.testing.assert_array_equal(decode_map(png, (12, 16)), decode_map(png))
    assert decode_map(png, (47, 60)).shape == (47, 60)  # 16 of 60 columns are 12.53 of 47 rows: 12 by rounding twice
    for other in ((45, 45), (60, 45), (6, 8), (13, 16), (15, 17)):
        with pytest.raises(SessError, match=r"the map is \(12, 16\), its row says"):
            decode_map(png, other)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "cats/b.PNG", "cats/deep/c.jpeg", "dogs/d[1].png", "notes.txt", "cats/.hidden.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(half_red()))
    return tmp_path / "images"


def test_a_folder_is_searched(folder):
    items = find_images(str(folder))
    assert [(item.image_id, item.label) for item in items] == [
        ("a.jpg", "images"),
        ("cats/b.PNG", "cats"),
        ("cats/deep/c.jpeg", "deep"),
        ("dogs/d[1].png", "dogs"),
    ]
    contents = read_items([item.uri for item in items])
    assert all(isinstance(content, bytes) and decode(content).shape == (4, 6, 3) for content in contents)


def test_globs_files_and_other_file_systems(folder):
    assert [item.image_id for item in find_images(f"{folder}/*/*.[Pp][Nn][Gg]")] == ["cats/b.PNG", "dogs/d[1].png"]
    assert [item.image_id for item in find_images(f"{folder}/a.jpg")] == ["a.jpg"]
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/x/1.png", encoded(half_red()))
    [item] = find_images("memory://bucket")
    assert (item.image_id, item.uri) == ("x/1.png", memory.unstrip_protocol("/bucket/x/1.png"))
    assert isinstance(read_items([item.uri])[0], bytes)


@pytest.mark.parametrize(
    ("url", "output"),
    [
        ("{0}", "{0}/out"),
        ("{0}/", "{0}/./out/"),
        (".", "out"),
        ("", "out"),
        ("**/*.jpg", "out"),
        ("{0}/**/*.jpg", "{0}/out"),
        ("file://{0}", "{0}/out"),
        ("{0}", "file://{0}/out"),
        ("{0}", "{0}/link/out"),
        ("memory://{0}", "memory://{0}/out/"),
    ],
)
def test_an_output_below_the_input_is_left_out(tmp_path, monkeypatch, url, output):
    monkeypatch.chdir(tmp_path)
    files = ("a/1.jpg", "out/overlays/1.jpg", "out/deep/er/2.jpg", "outer/3.jpg")
    for name in files:
        for place in (str(tmp_path), f"memory://{tmp_path}"):
            with fsspec.open(f"{place}/{name}", "wb") as file:
                file.write(b"x")
    (tmp_path / "link").symlink_to(tmp_path)
    url, output = url.format(tmp_path), output.format(tmp_path)
    found = list_images(url or ".", output=output)["image_id"].to_pylist()
    assert found == ["a/1.jpg", "outer/3.jpg"]
    assert list_images(url or ".", 2, output)["image_id"].to_pylist() == found  # the limit is of what is left
    assert "out/overlays/1.jpg" in list_images(url or ".")["image_id"].to_pylist()


def test_in_an_output_that_is_the_input_only_what_is_written_is_left_out(tmp_path):
    for name in ("1.jpg", "overlays/1.png", "maps/x.png", "errors/x.png", "photographs/overlays/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = list_images(str(tmp_path), output=f"{tmp_path}/")["image_id"].to_pylist()
    assert found == ["1.jpg", "photographs/overlays/2.jpg"]


def test_what_can_not_be_read_is_returned_as_an_error(folder):
    found = read_items([f"{folder}/a.jpg", f"{folder}/gone.jpg"])
    assert isinstance(found[0], bytes)
    assert isinstance(found[1], FileNotFoundError)


def test_manifests_in_csv_and_json_lines(folder):
    with (folder / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [["uri", "id", "label", "targets"], ["a.jpg", "007", "cat", "1;2"], ["cats/b.PNG", "8", "", ""]]
        )
    items = find_images(str(folder / "m.csv"))
    assert [(i.image_id, i.uri, i.label, i.targets) for i in items] == [
        ("007", f"{folder}/a.jpg", "cat", ["1", "2"]),
        ("8", f"{folder}/cats/b.PNG", None, None),
    ]
    lines = [{"path": "a.jpg", "target": 3}, {"path": "a.jpg", "target": 5}, {"path": "s3://b/k.jpg", "target": 1}]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    items = find_images(str(folder / "m.jsonl"))
    assert [(i.image_id, i.uri, i.targets) for i in items] == [
        ("a.jpg", f"{folder}/a.jpg", ["3", "5"]),
        ("s3://b/k.jpg", "s3://b/k.jpg", ["1"]),
    ]


def test_parquet_with_image_bytes_in_the_layout_of_hugging_face(tmp_path):
    images = [{"bytes": encoded(half_red(size=(6 + i, 4))), "path": f"{i}.png" if i != 1 else None} for i in range(5)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array([3, 1, 4, 1, 5])})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=2)
    items = find_images(str(tmp_path / "m.parquet"))
    assert [(i.image_id, i.label) for i in items] == [
        ("0.png", "3"),
        ("m.parquet#1", "1"),
        ("2.png", "4"),
        ("3.png", "1"),
        ("4.png", "5"),
    ]
    chosen = [items[4], items[0], items[3]]
    contents = read_items([i.uri for i in chosen])
    assert [decode(content).shape[1] for content in contents] == [10, 6, 9]
    pq.write_table(pa.table({"id": ["x"], "bytes": [images[0]["bytes"]]}), tmp_path / "plain.parquet")
    [item] = find_images(str(tmp_path / "plain.parquet"))
    assert (item.image_id, item.uri) == ("x", f"{tmp_path}/plain.parquet#0")
    pq.write_table(pa.table({"uri": ["u.jpg"], "targets": [[1, 2]]}), tmp_path / "uris.parquet")
    [item] = find_images(str(tmp_path / "uris.parquet"))
    assert (item.uri, item.targets) == (f"{tmp_path}/u.jpg", ["1", "2"])


def test_items_that_share_a_member_all_have_it(tmp_path):
    content = encoded(half_red())
    pq.write_table(pa.table({"bytes": [content, content]}), tmp_path / "p.parquet")
    with tarfile.open(tmp_path / "t.tar", "w") as shard:
        info = tarfile.TarInfo("a.png")
        info.size = len(content)
        shard.addfile(info, io.BytesIO(content))
    files = [f"{tmp_path}/p.parquet#1", f"{tmp_path}/t.tar#a.png"]
    assert read_items([*files, *files]) == [content] * 4
    for missing in ("p.parquet#2", "p.parquet#01", "p.parquet#x", "t.tar#b.png"):
        [found, other] = read_items([f"{tmp_path}/{missing}", files[0]])
        assert isinstance(found, FileNotFoundError)
        assert other == content


def test_a_limit_is_of_images_and_cuts_none_of_their_targets(folder):
    lines = [{"path": "a.jpg", "target": 3}, {"path": "cats/b.PNG", "target": 4}, {"path": "a.jpg", "target": 5}]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    listed = list_images(str(folder / "m.jsonl"), limit=1).to_pylist()
    assert [(row["image_id"], row["targets"]) for row in listed] == [("a.jpg", ["3", "5"])]
    assert list_images(str(folder), limit=3)["image_id"].to_pylist() == ["a.jpg", "cats/b.PNG", "cats/deep/c.jpeg"]


def test_inputs_that_are_wrong(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("name,size\nx,3\n")
    (tmp_path / "twice.csv").write_text("uri,id\na.jpg,1\nb.jpg,1\n")
    (tmp_path / "broken.jsonl").write_text("{not json\n")
    for url, message in (
        (tmp_path / "nowhere", "no such input"),
        (tmp_path / "empty", "no images in"),
        (tmp_path / "bad.csv", "needs a column 'uri'.*it has: name, size"),
        (tmp_path / "twice.csv", "has id '1' for two images"),
        (tmp_path / "broken.jsonl", "cannot read"),
        ("nope://bucket/x", "cannot open nope://bucket/x"),
    ):
        with pytest.raises(SessError, match=message):
            find_images(str(url))


def test_maps_survive_storage_to_half_a_level():
    saliency = np.random.default_rng(2).random((31, 47), np.float32)
    stored = decode_map(encode_map(quantize(saliency)))
    assert np.abs(stored - saliency).max() <= 0.5 / 255 + 1e-6
    assert (stored.dtype, stored.shape) == (np.float32, (31, 47))


def test_the_store_shows_whole_files_only_and_clears_only_its_own(tmp_path):
    store = Store(str(tmp_path / "out"))
    store.check_writable()
    assert not store.is_used()
    table = pa.table({"image_id": ["b", "a"], "uri": ["", ""], "stage": ["", ""], "error": ["", ""]})
    name = store.write_table("errors", table)
    assert store.write_table("errors", table) == name  # the same rows, the same file
    assert store.tables("errors") == [name]
    assert store.read_table(name).equals(table)
    assert store.is_used()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    store.clear()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(SessError, match=r"cannot write .*choose another --output"):
        Store(str(tmp_path / "file" / "below")).check_writable()
