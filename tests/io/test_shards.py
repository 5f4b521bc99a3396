"""Tar shards as people have them: made by macOS, with links, labels in several kinds of files, cut short."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from sess_ray import SessError
from sess_ray.access import Access
from sess_ray.io.reading import read_items
from sess_ray.io.shards import read_shard
from sess_ray.pipeline.explain.stages import TASKS, read_and_decode
from tests.io.pictures import PNG


def packed(*members):
    """Return a tar shard of (name, bytes), or of (name, where a link leads, kind of link)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", encoding="utf-8") as shard:
        for name, content, *kind in members:
            info = tarfile.TarInfo(name)
            if kind:
                [info.type] = kind
                info.linkname = content
                shard.addfile(info)
            else:
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read(tmp_path, content):
    """Return names and labels of the images of a shard, those that are good; and what went wrong, with the rest."""
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    good, bad = [], []
    try:
        for image in read_shard(str(path)):
            if isinstance(image.content, Exception):
                bad.append(f"{image.name}: {image.content}")
            else:
                assert read_items([f"{path}#{image.name}"]) == [image.content]
                good.append((image.name, image.label))
    except Exception as error:
        bad.append(f"{type(error).__name__}: {error}")
    return good, bad


def test_what_is_hidden_is_left_out(tmp_path):
    names = ("._1.jpg", "1.jpg", "._1.cls", "1.cls", "__MACOSX/._2.jpg", ".ipynb_checkpoints/3.jpg", "./4.jpg")
    content = packed(*((name, b"7" if name.endswith("cls") else b"x") for name in names))
    assert read(tmp_path, content) == ([("1.jpg", "7"), ("./4.jpg", None)], [])


def test_links_are_what_they_lead_to(tmp_path):
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    content = packed(
        ("a/1.jpg", PNG),
        ("a/2.jpg", "a/1.jpg", hard),
        ("b/3.jpg", "../a/1.jpg", soft),
        ("b/4.jpg", "3.jpg", soft),
        ("b/5.jpg", "6.jpg", soft),
        ("b/5.cls", "../classes/tench", soft),
        ("b/6.jpg", PNG),
        ("classes/tench", b"0"),
    )
    good, bad = read(tmp_path, content)
    assert bad == []
    labels = {"b/5.jpg": "0"}
    assert good == [(f"{name}.jpg", labels.get(f"{name}.jpg")) for name in ("a/1", "a/2", "b/3", "b/4", "b/5", "b/6")]


def test_a_link_that_leads_nowhere_costs_one_image(tmp_path):
    soft = tarfile.SYMTYPE
    content = packed(
        ("1.jpg", "1.jpg", soft),
        ("2.jpg", "3.jpg", soft),
        ("3.jpg", "2.jpg", soft),
        ("4.jpg", "../../etc/passwd", soft),
        ("5.jpg", "gone.jpg", tarfile.LNKTYPE),
        ("folder", "", tarfile.DIRTYPE),
        ("7.jpg", "folder", soft),
        ("6.jpg", PNG),
    )
    good, bad = read(tmp_path, content)
    assert good == [("6.jpg", None)]
    assert bad == [
        *(f"{n}.jpg: a link in the shard that leads to itself: {n}.jpg" for n in (1, 2, 3)),
        "4.jpg: a link to ../../etc/passwd, which is not in the shard",
        "5.jpg: a link to gone.jpg, which is not in the shard",
        "7.jpg: a link to folder, which is no file",
    ]


@pytest.mark.parametrize(
    ("files", "label"),
    [
        ({"1.CLS": b"3"}, "3"),
        ({"1.cls": b"\xef\xbb\xbf3\r\n"}, "3"),
        ({"1.cls": "3".encode("utf-16")}, "3"),
        ({"1.json": b'{"label": 3}'}, "3"),
        ({"1.JSON": b'\xef\xbb\xbf{"label": 3.0, "caption": "a cat"}'}, "3"),
        ({"1.json": b'{"class": "tabby cat"}'}, "tabby cat"),
        ({"1.json": b'{"class_index": 281}'}, "281"),
        ({"1.json": b'{"cls": 281}'}, "281"),
        ({"1.json": b'{"label": 3}', "1.cls": b"4"}, "4"),
        ({"1.cls": b"", "1.json": b'{"label": 3}'}, "3"),
        ({"1.json": b'{"label": null}'}, None),
        ({"1.json": b'{"label": true}'}, None),
        ({"1.json": b'{"label": 3.5}'}, None),
        ({"1.json": b'{"label": [3, 4]}'}, None),
        ({"1.json": b'{"label": NaN}'}, None),
        ({"1.json": b'[{"label": 3}]'}, None),
        ({"1.json": b'{"label": 3'}, None),
        ({"1.json": b"[" * 100_000}, None),
        ({"1.json": b"\xff"}, None),
        ({"2.json": b'{"label": 3}'}, None),
        ({"1.txt": b"3"}, None),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_labels(tmp_path, files, label, first):
    image, facts = ("1.left.jpg", PNG), list(files.items())
    assert read(tmp_path, packed(*([image, *facts] if first else [*facts, image]))) == ([(image[0], label)], [])


def test_a_name_that_comes_again_is_numbered(tmp_path):
    content = packed(("1.jpg", b"a"), ("1.jpg", b"b"), ("2.jpg", b"c"), ("1.jpg", b"d"), ("1.cls", b"5"))
    good, bad = read(tmp_path, content)
    assert (good, bad) == ([("1.jpg", None), ("1.jpg#2", None), ("2.jpg", None), ("1.jpg#3", "5")], [])


def test_names_that_are_no_utf_8(tmp_path):
    raw = b"caf\xe9/\xff1.jpg"
    content = packed(("caf0/_1.jpg", PNG), ("2.jpg", PNG)).replace(b"caf0/_1.jpg", raw)
    header = bytearray(content[:512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert read(tmp_path, bytes(header) + content[512:]) == (
        [("caf\\xe9/\\xff1.jpg", None), ("2.jpg", None)],
        [],
    )


@pytest.mark.parametrize("at", [3 * 512 + 600, 4 * 512 + 100, 5 * 512])
def test_of_a_shard_that_is_cut_what_is_before_is_read_and_the_rest_is_said(tmp_path, at):
    whole = packed(("1.jpg", b"a"), ("1.cls", b"5"), ("2.jpg", b"b" * 2000), ("3.jpg", b"c"))
    good, bad = read(tmp_path, whole[:at])
    assert good == [("1.jpg", "5")]
    assert bad


def test_an_image_before_the_cut_is_not_lost_with_its_sample(tmp_path):
    whole = packed(("1.jpg", b"a"), ("1.cls", b"5" * 2000))
    assert read(tmp_path, whole[: 4 * 512]) == ([("1.jpg", None)], ["ReadError: unexpected end of data"])


@pytest.mark.parametrize("damage", [b"\xff" * 512, b"a"])
def test_a_damaged_header_does_not_end_a_shard_in_silence(tmp_path, damage):
    whole = packed(("1.jpg", b"a"), ("2.jpg", b"b"), ("3.jpg", b"c"))
    content = whole[:1024] + damage + whole[1024 + len(damage) :]
    assert read(tmp_path, content) == ([("1.jpg", None)], ["ReadError: damaged at byte 1024: what follows is lost"])
    assert read(tmp_path, whole[: 1024 + 100])[1] == ["ReadError: damaged at byte 1024: what follows is lost"]
    assert read(tmp_path, whole[:1024]) == ([("1.jpg", None)], [])  # no trailer, as some programs write it


def test_joined_shards_are_told_from_rubbish_behind_the_end(tmp_path):
    one = packed(("1.jpg", b"a"))
    [good], [bad] = read(tmp_path, one + packed(("2.jpg", b"b")))
    assert good == ("1.jpg", None)
    assert bad.endswith(
        "the shard ends at byte 1024, and another one is joined to it, which is not read: take them apart"
    )
    assert read(tmp_path, one + b"rubbish" * 1000) == ([("1.jpg", None)], [])


def test_a_size_that_lies_costs_no_memory(tmp_path):
    content = bytearray(packed(("1.jpg", b"a")))
    content[124:136] = b"\x80" + (2**40).to_bytes(11, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    assert read(tmp_path, bytes(content))[1] == [
        "1.jpg: more than the 1,000,000,000 bytes that --max-bytes allows",
        "ReadError: unexpected end of data",
    ]


def test_a_compressed_shard_is_refused_by_name(tmp_path):
    good, [bad] = read(tmp_path, gzip.compress(packed(("1.jpg", b"a"))))
    assert (good, bad) == ([], "SessError: the shard is compressed by gzip: unpack it, images are compressed already")
    assert read(tmp_path, b"<html>" * 200)[1] == ["ReadError: invalid header"]


def rows(tmp_path, content, **given):
    (tmp_path / "s.tar").write_bytes(content)
    row = {"image_id": "s.tar", "uri": f"{tmp_path}/s.tar", "top": "top1", **given}
    [table] = read_and_decode(TASKS.empty_table().from_pylist([row], TASKS), Access(), 10**6)
    return [(row["image_id"], row["stage"], row["error"]) for row in table.to_pylist()]


@pytest.mark.parametrize("content", [packed(), packed(("1.cls", b"3"), ("._1.jpg", b"x")), b"\0" * 512])
def test_a_shard_without_images_is_an_error(tmp_path, content):
    assert rows(tmp_path, content) == [("s.tar", "read", "the shard holds no image")]


def test_each_image_of_a_shard_is_below_it(tmp_path):
    content = packed(("/1.png", PNG), ("../2.png", PNG), ("3.png", b""))
    assert rows(tmp_path, content) == [
        ("s.tar/1.png", None, None),
        ("s.tar/../2.png", None, None),
        ("s.tar/3.png", "decode", "the file is empty"),
    ]
    assert [name for name, *_ in rows(tmp_path, content, done=["1.png", "3.png"])] == ["s.tar/../2.png"]


def test_a_file_of_no_bytes(tmp_path):
    assert rows(tmp_path, b"") == [("s.tar", "read", "ReadError: empty file")]
    (tmp_path / "z.tar").write_bytes(b"PK\x03\x04" + b"\0" * 600)
    with pytest.raises(SessError, match="compressed by zip"):
        list(read_shard(str(tmp_path / "z.tar")))


def test_a_label_is_read_from_json(tmp_path):
    facts = {"label": 281, "key": "1", "url": "https://host/1.jpg", "status": "success"}  # as img2dataset writes
    assert read(tmp_path, packed(("1.jpg", PNG), ("1.json", json.dumps(facts).encode()))) == ([("1.jpg", "281")], [])
