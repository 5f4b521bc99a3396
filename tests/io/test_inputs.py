"""Images listed from folders, globs, manifests and Parquet, and read."""

from __future__ import annotations

import csv
import io
import json
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray import SessError
from sess_ray.io import inputs
from sess_ray.io.decode import decode
from sess_ray.io.inputs import find_images, list_images
from sess_ray.io.reading import read_items
from tests.io.pictures import encoded, half_red


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "cats/b.PNG", "cats/deep/c.jpeg", "dogs/d[1].png", "notes.txt", "cats/.hidden.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(half_red()))
    return tmp_path / "images"


def test_a_folder_is_searched(folder):
    items = find_images(str(folder))
    assert [(item.image_id, item.folder) for item in items] == [
        ("a.jpg", "./images"),
        ("cats/b.PNG", "cats"),
        ("cats/deep/c.jpeg", "cats/deep"),
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
    assert [(i.image_id, i.uri, i.labels, i.targets) for i in items] == [
        ("007", f"{folder}/a.jpg", ["cat"], ["1", "2"]),
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
    assert [(i.image_id, i.labels) for i in items] == [
        ("0.png", ["3"]),
        ("m.parquet#1", ["1"]),
        ("2.png", ["4"]),
        ("3.png", ["1"]),
        ("4.png", ["5"]),
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
        (tmp_path / "broken.jsonl", "line 1 of .* is no JSON"),
        ("nope://bucket/x", "cannot open nope://bucket/x"),
    ):
        with pytest.raises(SessError, match=message):
            find_images(str(url))


@pytest.mark.parametrize("output", ["link", "real", "../in/link", "outer/out"])
def test_an_output_that_a_link_leads_to_is_left_out(tmp_path, monkeypatch, output):
    root = tmp_path / "in"
    for name in ("in/a.png", "in/real/overlays/1.png", "elsewhere/out/overlays/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (root / "link").symlink_to("real")
    (root / "outer").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(root)
    pictures = {"link/overlays/1.png", "real/overlays/1.png"}
    left = {"outer/out/overlays/2.png"} if "outer" not in output else pictures
    assert set(list_images(".", output=output)["image_id"].to_pylist()) == {"a.png"} | left
    assert list_images("real/overlays", output="real")["image_id"].to_pylist() == ["1.png"]  # asked for


def test_what_other_runs_have_left_in_a_folder_is_left_out(tmp_path):
    for name in ("1.jpg", "run/started.json", "run/overlays/2.png", "run/photographs/3.jpg", "maps/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = list_images(str(tmp_path))["image_id"].to_pylist()
    assert found == ["1.jpg", "maps/4.jpg", "run/photographs/3.jpg"]
    assert list_images(f"{tmp_path}/run/overlays")["image_id"].to_pylist() == ["2.png"]


@pytest.mark.parametrize(("count", "expected"), [(3, 0), (4, 1), (9, 2)])
def test_what_takes_long_is_done_while_many_images_are_listed(tmp_path, monkeypatch, count, expected):
    monkeypatch.setattr(inputs, "CHUNK", 4)
    (tmp_path / "t.csv").write_text("uri\n" + "".join(f"{number}.jpg\n" for number in range(count)))
    calls = []
    assert inputs.read_inputs(f"{tmp_path}/t.csv", meanwhile=lambda: calls.append(1)).images.num_rows == count
    assert len(calls) == expected
