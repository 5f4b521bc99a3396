"""Files that Pillow does not read, or that are no images by their names: left out, counted, and said."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from PIL import Image

from sess_ray import SessError
from sess_ray.io.decode import decode, shrunk
from sess_ray.io.inputs import find_images
from sess_ray.io.items import IMAGE_EXTENSIONS


def said(caplog, folder):
    with caplog.at_level(logging.WARNING, "sess_ray"):
        found = [item.image_id for item in find_images(str(folder))]
    return found, [record.getMessage() for record in caplog.records]


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    return tmp_path


def test_a_line_says_what_is_left_out(folder, caplog):
    for name in ("b.jxl", "c.JXL", "d", "deep/e", "deep/notes.txt", ".DS_Store"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found, lines = said(caplog, folder)
    assert found == ["a.png"]
    assert len(lines) == 1
    assert lines[0].startswith("left out, no images by their names: 2 without an extension (name them in a manifest")
    assert "2 .jxl (convert them)" in lines[0]
    assert lines[0].endswith(" and 1 .txt")


def test_where_nothing_is_left_out_nothing_is_said(folder, caplog):
    assert said(caplog, folder) == (["a.png"], [])


def test_many_kinds_are_one_line(folder, caplog):
    for number in range(30):
        (folder / f"x.k{number}").write_bytes(b"x")
    [line] = said(caplog, folder)[1]
    assert line.endswith(" and 26 more kinds")


def test_a_folder_of_nothing_else_is_refused_with_what_is_there(tmp_path):
    (tmp_path / "1.jxl").write_bytes(b"x")
    with pytest.raises(SessError, match=r"no images in .* by their names, but 1 \.jxl \(convert them\)"):
        find_images(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\x0a" + bytes(30), "a JPEG XL image, which Pillow does not read: convert it"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (b'<?xml version="1.0"?><svg/>', "not an image but a page or a drawing in XML"),
        (b"\n<!DOCTYPE html><html>", "not an image but a page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a pointer of Git LFS: run git lfs pull"),
        (b"hello", "not an image, or of a kind that Pillow does not read"),
    ],
)
def test_what_pillow_does_not_read_is_called_by_its_name(content, told):
    with pytest.raises(SessError, match=told):
        decode(content)


WITHOUT = """
    import sys
    sys.modules["pillow_heif"] = None
    from sess_ray.io.decode import decode
    try:
        decode(b"\\0\\0\\0\\x18ftypheic" + bytes(30))
    except Exception as error:
        print(error)
"""


def test_heif_without_its_package_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[4:] for line in WITHOUT.splitlines())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "a HEIF image: install sess-ray[heif]\n"


def test_heif(folder, caplog):
    heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 48), (200, 30, 40))
    heif.register_heif_opener()
    image.save(folder / "b.heic", quality=95)
    assert ".heic" in IMAGE_EXTENSIONS
    assert said(caplog, folder) == (["a.png", "b.heic"], [])
    content = (folder / "b.heic").read_bytes()
    pixels = decode(content)
    assert pixels.shape == (48, 64, 3)
    assert pixels[5, 5].tolist() == pytest.approx([200, 30, 40], abs=6)
    assert shrunk(content, needed=(1, 32))[0].shape == (24, 32, 3)


def test_archives_beside_images_and_tables_are_told_with_what_to_do(folder, caplog):
    for name in ("b.tar.gz", "deep/c.TGZ", "d.zip", "e.csv", "f.arrow"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found, [line] = said(caplog, folder)
    assert found == ["a.png"]
    for told in (
        "1 .arrow (write it as Parquet)",
        "1 .csv (give it as the input if it lists the images)",
        "1 .tar.gz (unpack it)",
        "1 .tgz (unpack it)",
        "1 .zip (unpack it)",
    ):
        assert told in line
