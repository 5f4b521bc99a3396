"""Manifests made of inputs: what explain reads of them is what it reads of the inputs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sess_ray import SessError
from sess_ray.cli import main
from sess_ray.io import manifest_writer, spans
from sess_ray.io.columns import listed_folders
from sess_ray.io.inputs import Listing, read_inputs
from sess_ray.io.spans import cut
from sess_ray.io.store import Store
from sess_ray.pipeline.listing import job
from sess_ray.pipeline.listing.config import ListConfig
from sess_ray.pipeline.listing.job import prepare, run

ROOT = Path(__file__).parents[2]


def written(url, files):
    for name, content in files.items():
        with fsspec.open(f"{url}/{name}", "wb", auto_mkdir=True) as file:
            file.write(content if isinstance(content, bytes) else content.encode())
    return url


def list_into(place, output, **more):
    config = ListConfig(input=str(place), output=str(output), **more)
    run(prepare(config))
    return str(output)


def same(found, expected):
    """What is read of both; a manifest's own error has the manifest's own words."""
    right, wrong = (
        [inputs.images.filter(check(inputs.images["error"])) for inputs in (found, expected)]
        for check in (pc.is_null, pc.is_valid)
    )
    assert right[0].equals(right[1])
    for name in ("image_id", "labels", "targets"):
        assert wrong[0][name].to_pylist() == wrong[1][name].to_pylist()


@pytest.fixture
def small(monkeypatch):
    """Parts of seven images, in groups of three."""
    monkeypatch.setattr(job, "PART", 7)
    monkeypatch.setattr(manifest_writer, "GROUP", 3)


TREE = {
    f"{split}/n{number:02}/{image}.jpg": b"x" for split in ("train", "val") for number in range(4) for image in "ab"
}
ODD = {"a#1.tar#2.jpg": b"x", "cat #1?.png": b"x", 'c, "d"/\u00e9 b.jpg': b"x", "notes.txt": "x", ".h/x.jpg": b"x"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("files", [TREE, TREE | ODD, {"1.jpg": b"x"}], ids=["tree", "odd", "one"])
@pytest.mark.parametrize("place", ["{}/in", "memory://listed{}/in", "{}/in/{{train,val}}", "{}/in/**/*.jpg"])
def test_a_manifest_of_a_folder_says_what_the_folder_says(tmp_path, files, place):
    place = place.format(tmp_path)
    if "*" in place or "," in place:
        files = {name: content for name, content in (TREE | files).items() if "?" not in name}
    written(place.partition("/{")[0].partition("/**")[0], files)
    manifest = list_into(place, tmp_path / "m.parquet")
    expected = read_inputs(place)
    same(read_inputs(manifest), expected)
    assert listed_folders(pq.read_schema(manifest)) == tuple(sorted(set(expected.images["folder"].to_pylist())))
    metadata = pq.read_metadata(manifest)
    assert all(metadata.row_group(group).num_rows == 3 for group in range(metadata.num_row_groups - 1))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "in") == ["m.parquet"]


TABLE = "id,file,label,targets\n" + "".join(
    f"{row},{row}.jpg,{label},{targets}\n"
    for row, label, targets in [
        ("1", "cat", ""),
        ("2", "", "0;1"),
        ("3", "dog", "1"),
        ("3", "cat", ""),
        ("4", "281.0", "top2"),
        ("https://h/5?key=5ecret&a=1", "", ""),
        ("7", "a;b", ""),
    ]
)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "files",
    [
        {"t.csv": TABLE + "8,,x,\n9,9.jpg,,\n"},
        {"t.csv": "uri\n1.jpg\n2.jpg\n"},
        {"t.csv": "uri,class\n1.jpg,a\n2.jpg,\n"},
        {"t.jsonl": '{"uri": "a.jpg", "label": ["x", "y"]}\n{"path": "b.jpg", "targets": [1, "p>0.5"]}\n'},
        {"t.tsv": "path\tlabel\n" + "".join(f"{number}.jpg\t{number % 3}\n" for number in range(20))},
    ],
)
def test_a_manifest_of_a_table_says_what_the_table_says(tmp_path, files):
    [name] = files
    written(tmp_path, files)
    manifest = list_into(tmp_path / name, tmp_path / "m.parquet")
    same(read_inputs(manifest), read_inputs(str(tmp_path / name)))


def of_a_dataset(names, labels):
    feature = {"_type": "ClassLabel", "names": names}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature, "image": {"_type": "Image"}}}})}
    images = [{"bytes": b"x", "path": f"{number}.png"} for number in range(len(labels))]
    return pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("names", [["cat", "dog", "cow"], ["7", "8", "9"]])
def test_image_bytes_and_the_names_of_their_classes(tmp_path, names):
    (tmp_path / "in").mkdir()
    for part in range(3):
        pq.write_table(of_a_dataset(names, [0, 1, 2, -1] * 3), tmp_path / f"in/{part}.parquet")
    manifest = list_into(tmp_path / "in", tmp_path / "m.parquet")
    expected = read_inputs(str(tmp_path / "in"))
    found = read_inputs(manifest)
    same(found, expected)
    assert expected.class_names == (tuple(names),)
    # Where names are numbers, labels are names and no indices of them.
    assert found.class_names == (expected.class_names if names[0] == "cat" else ())
    assert found.images["labels"].to_pylist()[:4] == [[names[0]], [names[1]], [names[2]], None]


@pytest.mark.usefixtures("small")
def test_the_same_images_give_the_same_bytes(tmp_path):
    written(tmp_path / "in", TREE | ODD)
    whole = Path(list_into(tmp_path / "in", tmp_path / "m.parquet")).read_bytes()
    assert Path(list_into(tmp_path / "in", tmp_path / "m.parquet", overwrite=True)).read_bytes() == whole


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("place", ["{}/in", "{}/t.csv"])
@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5])
def test_a_list_goes_on_where_it_was_stopped(tmp_path, place, calls):
    """Stopped after each of its parts, and in between; nothing is there under its name before it is whole."""
    written(tmp_path / "in", TREE | ODD)
    written(tmp_path, {"t.csv": "uri\n" + "".join(f"{number}.jpg\n" for number in range(21))})
    place, output = place.format(tmp_path), tmp_path / "m.parquet"
    whole = Path(list_into(place, tmp_path / "whole.parquet")).read_bytes()
    left = calls

    def done(_):
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    config = ListConfig(input=place, output=str(output))
    try:
        run(prepare(config), done)
    except Killed:
        assert not output.exists()
        resumed = prepare(config)
        assert resumed.progress.items == 7 * max(0, calls - 2)
        run(resumed)
    assert output.read_bytes() == whole
    assert not (tmp_path / ".m.parquet.parts").exists()


@pytest.mark.usefixtures("small")
def test_killed_while_the_manifest_is_made_of_its_parts(tmp_path, monkeypatch):
    written(tmp_path / "in", TREE)
    whole = Path(list_into(tmp_path / "in", tmp_path / "whole.parquet")).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(manifest_writer, "_with_columns", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            list_into(tmp_path / "in", tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()
    (tmp_path / "in/train/n00/a.jpg").unlink()  # what is listed is listed
    assert Path(list_into(tmp_path / "in", tmp_path / "m.parquet")).read_bytes() == whole


@pytest.mark.usefixtures("small")
def test_what_was_begun_with_something_else_does_not_go_on(tmp_path):
    def stopped():
        calls = iter(range(3))

        def done(_):
            if next(calls) == 2:
                raise Killed

        with pytest.raises(Killed):
            run(prepare(ListConfig(input=str(tmp_path / "in"), output=str(tmp_path / "m.parquet"))), done)

    written(tmp_path / "in", TREE)
    written(tmp_path / "other", {"1.jpg": b"x"})
    stopped()
    (tmp_path / "in/train/n00/a.jpg").unlink()
    with pytest.raises(SessError, match="has changed since a list of it was stopped: --overwrite begins anew"):
        list_into(tmp_path / "in", tmp_path / "m.parquet")
    manifest = list_into(tmp_path / "in", tmp_path / "m.parquet", overwrite=True)
    same(read_inputs(manifest), read_inputs(str(tmp_path / "in")))
    with pytest.raises(SessError, match="is there already: add --overwrite"):
        list_into(tmp_path / "in", tmp_path / "m.parquet")
    (tmp_path / "m.parquet").unlink()
    stopped()
    assert read_inputs(list_into(tmp_path / "other", tmp_path / "m.parquet")).images.num_rows == 1


def test_more_folders_than_there_may_be_classes_are_not_named(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_writer, "MOST_FOLDERS", 3)
    monkeypatch.setattr(spans, "LARGE", 2)
    written(tmp_path / "in", {f"{number}/1.jpg": b"x" for number in range(4)})
    manifest = list_into(tmp_path / "in", tmp_path / "m.parquet")
    assert listed_folders(pq.read_schema(manifest)) == ()
    assert cut(manifest).folders == ()
    same(read_inputs(manifest), read_inputs(str(tmp_path / "in")))


@pytest.mark.parametrize(
    ("files", "place", "message"),
    [
        ({"a.tar": b"x"}, "", "tar shards are listed in no manifest: sess-ray explain takes"),
        ({"t.csv": "id,uri\n1,a.jpg\n2,b.jpg\n1,c.jpg\n"}, "/t.csv", "has id '1' for two images"),
        ({"t.csv": "uri\n"}, "/t.csv", "no images in .*: it has no rows"),
        ({"t.txt": "x"}, "", r"no images in .* by their names, but 1 \.txt"),
        ({"t.json": "{}"}, "/t.json", "is no image, and no manifest by its name"),
    ],
)
def test_what_cannot_be_listed_is_refused_in_one_line(tmp_path, files, place, message):
    written(tmp_path / "in", files)
    with pytest.raises(SessError, match=message):
        list_into(f"{tmp_path}/in{place}", tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in", {"t.csv": "uri\na.jpg\n\n,\nb.jpg\n", "u.csv": "uri,label\na.jpg,x\n,y\n"})
    assert main.run("list", ["--input", "in/u.csv"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("0 images, 00:00\n")
    said, wrong, more = told.out.splitlines()
    assert said.startswith("manifest.parquet: 2 images in ")
    assert wrong == "1 row without an image, which a run counts as errors; first: row 2 of u.csv names no image"
    assert more == "explain: sess-ray explain --input manifest.parquet"
    for arguments, message in (
        (["--input", "in/t.csv"], "manifest.parquet is there already"),
        (["--input", "in/t.csv", "--output", "m.csv"], "give a name that ends in .parquet"),
        (["--input", "manifest.parquet"], "is the --input: give another name"),
        ([], "give an --input to list"),
        (["--input", "none", "--overwrite"], "no such input: none"),
    ):
        assert main.run("list", arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
    assert Path("manifest.parquet").exists()


@pytest.mark.slow
def test_what_is_held_does_not_grow_with_the_list(tmp_path, monkeypatch):
    """200,000 names of 300 characters, twice each, are 120 MB; a list of a fifth of them has held what is held."""
    monkeypatch.setattr(job, "PART", 16_384)
    name = "n" * 280
    process, held, most = psutil.Process(), [], []

    class Many(Listing):
        def __iter__(self):
            row = {"labels": None, "targets": None, "folder": "a", "error": None}
            for number in range(int(self.url)):
                yield job.Item(**row, image_id=f"{name}-{number}.jpg", uri=f"/{name}-{number}.jpg")

    monkeypatch.setattr(job, "Listing", Many)
    read_table = Store.read_table

    def read(*arguments):
        held.append(process.memory_info().rss)
        return read_table(*arguments)

    monkeypatch.setattr(Store, "read_table", read)
    for count in (40_000, 200_000):
        held.clear()
        config = ListConfig(input=str(count), output=f"{tmp_path}/{count}.parquet")
        run(prepare(config), lambda _: held.append(process.memory_info().rss))
        most.append(max(held))
    assert pq.read_metadata(tmp_path / "200000.parquet").num_rows == 200_000
    assert len(held) > 30
    assert most[1] - most[0] < 50e6


@pytest.mark.slow
def test_ctrl_c_and_the_same_command(tmp_path):
    """A process of its own, killed by a signal in the middle: what it has written is used."""
    table = tmp_path / "t.csv"
    with table.open("w") as lines:
        lines.write("uri\n")
        lines.writelines(f"photographs/{number:07}.jpg\n" for number in range(400_000))
    command = [sys.executable, ROOT / "jobs/list_dataset.py", "--input", table, "--output", tmp_path / "m.parquet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, env=environment)
    while not list((tmp_path / ".m.parquet.parts").glob("*.parquet")) and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    assert b"the same command goes on" in running.communicate()[1]
    assert running.returncode == 130
    assert not (tmp_path / "m.parquet").exists()
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, env=environment)
    assert "listed already: going on after the last" in done.stdout
    assert pq.read_metadata(tmp_path / "m.parquet").num_rows == 400_000
