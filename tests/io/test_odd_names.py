"""Names that people and programs give files: each costs one image at most, and none is read for another."""

from __future__ import annotations

import os
import tarfile
import zipfile

import fsspec
import pytest

from sess_ray import SessError
from sess_ray.access import one_line, open_filesystem
from sess_ray.io.inputs import list_images
from sess_ray.io.reading import read_items
from sess_ray.io.store import Store
from sess_ray.small import read_small

ODD = (
    "a b.jpg",
    " c.jpg",
    "d#1.jpg",
    "#e#.jpg",
    "f%20g.jpg",
    "h?i.jpg",
    "j&k=l.jpg",
    "m'n.jpg",
    'o"p.jpg',
    "q\nr.jpg",
    "s\\t.jpg",
    "u*v.jpg",
    "w[0].jpg",
    "{0..1}.jpg",
    "x::y.jpg",
    "zip::z.jpg",
    "::1.jpg",
    "p.parquet#2.jpg",
    "p.parquet#3",
    "t.tar#1.jpg",
    "caf\u00e9.jpg",
    "\u732b.jpg",
    "~.jpg",
    "$HOME.jpg",
    "-o.jpg",
    "https:.jpg",
    "\\xe9.jpg",
    "\u202egpj.jpg",
    ".jpg.jpg",
    "JPG.JPG",
)
SEEN = sorted(name for name in ODD if not name.startswith(".") and name.lower().endswith(".jpg"))


def written(root, names, folder=""):
    local = root.startswith("/")
    filesystem = fsspec.filesystem("file", auto_mkdir=True) if local else fsspec.filesystem("memory")
    for name in names:
        with filesystem.open(f"{root}/{folder}{name}", "wb") as file:
            file.write(name.encode())


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path}"


@pytest.mark.parametrize("folder", ["", "a::b/", "t.tar/", "p.parquet#0/", "caf\u00e9 #?%20/", "in[0]/"])
def test_odd_names_in_a_folder(root, folder):
    written(root, ODD, folder)
    found = list_images(f"{root}/{folder}")
    assert sorted(found["image_id"].to_pylist()) == SEEN
    contents = read_items(found["uri"].to_pylist())
    assert [content.decode() for content in contents] == found["image_id"].to_pylist()
    below = list_images(root)
    assert [content.decode() for content in read_items(below["uri"].to_pylist())] == [
        image_id.removeprefix(folder) for image_id in below["image_id"].to_pylist()
    ]


@pytest.mark.parametrize("name", SEEN)
def test_an_odd_name_alone(root, name):
    written(root, [name])
    [found] = list_images(f"{root}/{name}").to_pylist()
    assert found["image_id"] == name
    assert read_items([found["uri"]]) == [name.encode()]
    assert read_small(f"{root}/{name}", "class names") == name.encode()


def test_a_file_that_is_called_like_a_member_is_not_taken_for_it(tmp_path):
    written(str(tmp_path), ["1.jpg", "t.tar#1.jpg"])
    with tarfile.open(tmp_path / "t.tar", "w") as shard:
        shard.add(tmp_path / "1.jpg", "1.jpg")
    found = list_images(str(tmp_path))
    assert found["image_id"].to_pylist() == ["1.jpg", "t.tar", "t.tar#1.jpg"]
    assert read_items([found["uri"][2].as_py(), f"{tmp_path}/t.tar#1.jpg"]) == [b"t.tar#1.jpg", b"1.jpg"]


LATIN = b"caf\xe9.jpg"


def test_a_name_that_is_no_utf_8_is_read_and_shown_by_its_bytes(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.makedirs(folder)
    with open(folder + b"/" + LATIN, "wb") as file:
        file.write(b"content")
    written(str(tmp_path), ["1.jpg"])
    for url in (str(tmp_path), f"{tmp_path}/**/*.jpg", f"{tmp_path}/*/*.jpg"):
        last = list_images(url).to_pylist()[-1]
        assert last["image_id"].endswith("caf\\xe9.jpg")
        assert (last["uri"], last["folder"]) == (f"{tmp_path}/\\xff/caf\\xe9.jpg", "\\xff")
        assert read_items([last["uri"]]) == [b"content"]
    # As a shell gives it, and as a person would type what was shown.
    for name in (os.fsdecode(folder), f"{tmp_path}/\\xff"):
        [found] = list_images(name).to_pylist()
        assert found == {**last, "image_id": "caf\\xe9.jpg", "folder": "./\\xff"}
        assert Store(f"{name}/out").check_writable() is None
    assert sorted(os.listdir(folder)) == [LATIN, b"out"]


def test_one_that_is_gone_costs_one(tmp_path):
    written(str(tmp_path), ["1.jpg"])
    gone, good = read_items([f"{tmp_path}/{os.fsdecode(LATIN)}", f"{tmp_path}/1.jpg"])
    assert good == b"1.jpg"
    one_line(gone).encode()


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_manifest_that_is_no_utf_8_names_files_all_the_same(tmp_path, suffix):
    names = [LATIN, "caf\u00e9.png".encode(), b"1.jpg"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    rows = [b"uri", *names] if suffix == "csv" else [b'{"uri": "%s"}' % name for name in names]
    (tmp_path / f"m.{suffix}").write_bytes(b"\n".join(rows))
    found = list_images(f"{tmp_path}/m.{suffix}")
    assert found["image_id"].to_pylist() == ["caf\\xe9.jpg", "caf\u00e9.png", "1.jpg"]
    assert read_items(found["uri"].to_pylist()) == names


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_manifest_says_its_encoding(tmp_path, encoding):
    (tmp_path / "m.tsv").write_bytes("uri\tlabel\ncaf\u00e9.jpg\ttabby\n".encode(encoding))
    [item] = list_images(f"{tmp_path}/m.tsv").to_pylist()
    assert (item["image_id"], item["labels"]) == ("caf\u00e9.jpg", ["tabby"])


def test_half_a_pair_in_json_costs_one_image(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"uri": "\\ud83d.jpg"}\n{"uri": "m.jsonl"}')
    found = list_images(f"{tmp_path}/m.jsonl")
    assert found["image_id"].to_pylist() == ["\\ud83d.jpg", "m.jsonl"]
    gone, there = read_items(found["uri"].to_pylist())
    assert isinstance(gone, FileNotFoundError)
    assert isinstance(there, bytes)


def test_links(tmp_path):
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    written(str(tmp_path), ["1.jpg"])
    (tmp_path / "good.jpg").symlink_to(tmp_path / "1.jpg")
    found = list_images(str(tmp_path))
    assert found["image_id"].to_pylist() == ["1.jpg", "gone.jpg", "good.jpg", "loop.jpg"]
    contents = read_items(found["uri"].to_pylist())
    assert [content if isinstance(content, bytes) else type(content) for content in contents] == [
        b"1.jpg",
        FileNotFoundError,
        b"1.jpg",
        OSError,
    ]


def test_a_folder_that_looks_like_a_pattern_is_one(root):
    written(root, ["1.jpg", "deep/2.jpg"], "in[0]*/")
    written(root, ["3.jpg"], "in0/")
    for pattern, ids in (("**/*.jpg", ["1.jpg", "deep/2.jpg"]), ("*.jpg", ["1.jpg"]), ("d*/?.jpg", ["deep/2.jpg"])):
        assert list_images(f"{root}/in[0]*/{pattern}")["image_id"].to_pylist() == ids
    left = list_images(f"{root}/in[0]*/**/*.jpg", output=f"{root}/in[0]*/deep")["image_id"].to_pylist()
    assert left == ["1.jpg"]
    written(root, ["4.jpg"], "deep/folder.jpg/")
    assert list_images(f"{root}/deep/**/*.jpg")["image_id"].to_pylist() == ["folder.jpg/4.jpg"]
    assert list_images(f"{root}/i*[0]/*.jpg")["image_id"].to_pylist() == ["in0/3.jpg"]


def test_paths_as_other_programs_write_them(tmp_path):
    written(str(tmp_path), ["1.jpg", "a%20b.jpg", "a b.jpg", "c d.jpg", "e\\f.jpg"], "x/y/")
    names = ["x\\y\\1.jpg", "x/y\\1.jpg", "x/y/e\\f.jpg", f"file://{tmp_path}/x/y/c%20d.jpg"]
    names += [f"file://{tmp_path}/x/y/a%20b.jpg", "x/y/c%20d.jpg"]
    (tmp_path / "m.csv").write_text("\n".join(["uri", *names]))
    *found, gone = read_items(list_images(f"{tmp_path}/m.csv")["uri"].to_pylist())
    assert found == [b"1.jpg", b"1.jpg", b"e\\f.jpg", b"c d.jpg", b"a%20b.jpg"]
    assert isinstance(gone, FileNotFoundError)


def test_what_is_new_below_a_folder_that_is_no_utf_8_is_written_there(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.makedirs(folder)
    Store(f"{tmp_path}/\\xff/new/out").write("run.json", b"{}")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff"]
    assert os.listdir(folder) == [b"new"]
    written(str(tmp_path), ["1.jpg"], "\\xff/new/out/overlays/")
    (tmp_path / os.fsdecode(b"\xff") / "2.jpg").write_bytes(b"x")
    os.replace(f"{tmp_path}/\\xff/new/out/overlays", folder + b"/new/out/overlays")
    found = list_images(str(tmp_path), output=f"{tmp_path}/\\xff/new/out")["image_id"].to_pylist()
    assert found == ["\\xff/2.jpg"]


@pytest.mark.parametrize(
    ("url", "path"), [("s3://b/std::vector/a.jpg", "b/std::vector/a.jpg"), ("s3://b::c/x", "b::c/x")]
)
def test_keys_of_object_stores(url, path):
    pytest.importorskip("s3fs")
    filesystem, found = open_filesystem(url)
    assert (filesystem.protocol[0], found) == ("s3", path)
    assert Store(url).location == url


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0.jpg")
    written(str(tmp_path), ["1.jpg"])
    pipe, good = read_items(list_images(str(tmp_path))["uri"].to_pylist())
    assert good == b"1.jpg"
    assert one_line(pipe) == f"OSError: no regular file: {tmp_path}/0.jpg"


def test_links_from_folder_to_folder_end(tmp_path):
    folders = [tmp_path / str(number) for number in range(10)]
    for folder in folders:
        folder.mkdir()
        written(str(folder), ["1.jpg"])
        (folder / "self").symlink_to(folder)
        (folder / "up").symlink_to(tmp_path)
        for other in folders:
            (folder / f"to{other.name}").symlink_to(other)
    found = list_images(str(tmp_path))["image_id"].to_pylist()
    assert {f"{number}/1.jpg" for number in range(10)} <= set(found)
    assert len(found) == len(set(found)) <= 110


def test_a_linked_folder_is_searched_as_often_as_it_is_linked(tmp_path):
    written(str(tmp_path), ["1.jpg", "deep/2.jpg"], "data/cat/")
    for name in ("cat", "feline"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).symlink_to(tmp_path / "data" / "cat")
    assert list_images(f"{tmp_path}/in")["image_id"].to_pylist() == [
        f"{name}/{file}" for name in ("cat", "feline") for file in ("1.jpg", "deep/2.jpg")
    ]


@pytest.mark.parametrize("name", ["a::b", "zip::b", "a b", "a#b", "%20", "caf\u00e9", "p.parquet#0", "{0..1}"])
def test_an_output_is_where_it_says(root, name):
    store = Store(f"{root}/{name}/out")
    store.write_json("run.json", {"a": 1})
    again = Store(store.location)
    assert again.read_json("run.json") == {"a": 1}
    filesystem, path = fsspec.core.url_to_fs(root)
    assert [entry.rpartition("/")[2] for entry in filesystem.ls(path, detail=False)] == [name]
    assert store.path("run.json") == f"{root}/{name}/out/run.json"


def test_chains_of_file_systems(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.jpg", b"content")
        archive.writestr("names.txt", b"cat")
    place = f"zip://1.jpg::{tmp_path}/x.zip"
    assert read_small(place, "class names") == b"content"
    other = f"zip://names.txt::{tmp_path}/x.zip"
    assert read_items([place, other, place, f"{tmp_path}/gone"])[:3] == [b"content", b"cat", b"content"]
    with pytest.raises(SessError, match=r"is a chain of file systems, which workers cannot list: unpack"):
        list_images(f"zip://::{tmp_path}/x.zip")
    with pytest.raises(SessError, match=r"^zip::1\.jpg is a chain of file systems, which workers cannot list"):
        list_images("zip::1.jpg")
    with pytest.raises(SessError, match="is a chain of file systems, into which nothing is written"):
        Store(f"simplecache::{tmp_path}/out")


def test_braces(root):
    names = [f"t-{number:03}.tar" for number in range(8, 12)]
    written(root, [*names, "train/1.jpg", "val/2.jpg", "x-{0..1}.tar"])

    def ids(url):
        return list_images(f"{root}/{url}")["image_id"].to_pylist()

    assert ids("t-{008..011}.tar") == names
    assert ids("t-{011..010}.tar") == names[2:]
    assert ids("t-0{08,11}.tar") == [names[0], names[3]]
    assert ids("{train,val}") == ids("{train,val}/*.jpg") == ["train/1.jpg", "val/2.jpg"]
    assert ids("{val,train}/{1..2}.jpg".replace("{1..2}", "*")) == ["val/2.jpg", "train/1.jpg"]
    assert ids("{train,t-010.tar}") == ["train/1.jpg", "t-010.tar"]
    assert ids("x-{0..1}.tar") == ["x-{0..1}.tar"]
    with pytest.raises(SessError, match=r"^no such input: .*t-012.tar$"):
        ids("t-{010..012}.tar")
    with pytest.raises(SessError, match="the braces mean 1000000 files and more"):
        ids("t-{000000..999999}.tar")


def test_packed_archives_are_refused_by_name(root):
    written(root, ["a.tar.gz", "b/c.TGZ", "d/e.zip", "d/1.jpg", "f/{0..1}"])
    message = r"{} is a packed archive: unpack it, and give the folder, or .tar shards"
    for url, named in (
        ("a.tar.gz", "a.tar.gz"),
        ("*.tar.gz", "a.tar.gz"),
        ("b", "c.TGZ"),
        ("{a,a}.tar.gz", "a.tar.gz"),
    ):
        with pytest.raises(SessError, match=message.format(named)):
            list_images(f"{root}/{url}")
    assert list_images(f"{root}/d")["image_id"].to_pylist() == ["1.jpg"]
