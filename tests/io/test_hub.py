"""Datasets of Hugging Face's hub, as hf://datasets/...: the real file system, and a server with the hub's answers."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest

from sess_ray import SessError
from sess_ray.io.inputs import read_inputs
from sess_ray.io.reading import read_items
from tests.io.parquet import CELL, LABEL, PNG, written

pa = pytest.importorskip("pyarrow")
pytest.importorskip("huggingface_hub")
REPOSITORY = "datasets/acme/insects"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Answers what `HfFileSystem` asks about one repository, whose files lie in a folder."""

    root: Path

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        address = urlsplit(self.path)
        place = unquote(address.path)
        rest = unquote(
            re.sub(r".*?/(resolve|tree|paths-info)/[^/]+/?", "", address.path)
        )  # a revision may hold slashes
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        if not place.startswith((f"/api/{REPOSITORY}", f"/{REPOSITORY}/resolve/")):
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in place:
            self._file(rest)
        elif "/tree/" in place:
            deep = parse_qs(address.query).get("recursive", ["false"])[0].lower() == "true"
            self._list(rest, deep=deep)
        elif "/paths-info/" in place:
            asked = json.loads(body) if body.startswith("{") else parse_qs(body)
            self._send(
                200,
                json.dumps(
                    [self._entry(self.root / path) for path in asked["paths"] if (self.root / path).exists()]
                ).encode(),
            )
        else:
            self._send(
                200, json.dumps({"id": "acme/insects", "sha": COMMIT, "private": False, "siblings": []}).encode()
            )

    def _list(self, below, *, deep):
        folder = self.root / below
        if not folder.is_dir():
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        found = sorted(folder.rglob("*") if deep else folder.iterdir())
        self._send(200, json.dumps([self._entry(path) for path in found]).encode())

    def _entry(self, path):
        kind = "directory" if path.is_dir() else "file"
        size = 0 if path.is_dir() else path.stat().st_size
        return {"type": kind, "path": path.relative_to(self.root).as_posix(), "oid": "0" * 40, "size": size}

    def _file(self, path):
        content = (self.root / path).read_bytes()
        whole, span = len(content), self.headers.get("Range")
        if span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            content = content[int(first) : int(last) + 1 if last else None]
        more = {"Content-Range": f"bytes {first}-{int(first) + len(content) - 1}/{whole}"} if span else {}
        self._send(
            206 if span else 200, content, {"ETag": '"e"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes", **more}
        )

    def _send(self, status, content, headers=()):
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": len(content),
            **dict(headers),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path):
    """A dataset in the hub's layout: the folder it lies in; and its file system, which knows this server alone."""
    root = tmp_path / "insects"
    for number, rows in enumerate((PNG[:2], PNG[2:])):
        cells = pa.array([{"bytes": content, "path": f"{content[5:].decode()}.png"} for content in rows], CELL)
        table = pa.table({"image": cells, "label": [2 - number] * len(rows)})
        written(root / "data" / f"train-{number:05}-of-00002.parquet", table, image={"_type": "Image"}, label=LABEL)
    written(root / "data" / "test-00000-of-00001.parquet", table, image={"_type": "Image"}, label=LABEL)
    (root / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    (root / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (root / "photos").mkdir()
    (root / "photos" / "ant.png").write_bytes(PNG[0])
    (root / "photos" / "list.csv").write_text("file_name,label\nant.png,ant\n")
    handler = type("Handler", (Hub,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    options = fsspec.config.conf.setdefault("hf", {})
    options.update(endpoint=endpoint, token=False, skip_instance_cache=True)
    yield root
    del fsspec.config.conf["hf"]
    server.shutdown()
    server.server_close()


def listed(url):
    rows = read_inputs(url).images.to_pylist()
    contents = read_items([row["uri"] for row in rows])
    return [(row["image_id"], row["labels"], content) for row, content in zip(rows, contents, strict=True)]


TRAIN = [
    ("train-00000-of-00002.parquet/one.png", ["cow"], PNG[0]),
    ("train-00000-of-00002.parquet/two.png", ["cow"], PNG[1]),
    ("train-00001-of-00002.parquet/three.png", ["bee"], PNG[2]),
]


def below(folder, rows):
    return [(f"{folder}/{image_id}", *rest) for image_id, *rest in rows]


@pytest.mark.server
@pytest.mark.parametrize("place", ["local", "hf"])
def test_a_dataset_in_the_layout_of_the_hub(hub, place):
    root = str(hub) if place == "local" else f"hf://{REPOSITORY}"
    test = [("test-00000-of-00001.parquet/three.png", ["bee"], PNG[2])]
    assert listed(f"{root}/data/train-*.parquet") == TRAIN
    assert listed(f"{root}/data") == test + TRAIN
    assert listed(f"{root}/data/train-{{00000..00001}}-of-00002.parquet") == TRAIN
    assert listed(root) == [*below("data", test + TRAIN), ("photos/ant.png", None, PNG[0])]
    assert listed(f"{root}/data/train-00001-of-00002.parquet") == [("three.png", ["bee"], PNG[2])]
    assert listed(f"{root}/photos/list.csv") == [("ant.png", ["ant"], PNG[0])]
    found = read_inputs(f"{root}/data")
    assert found.class_names == (tuple(LABEL["names"]),)
    assert found.images["uri"][0].as_py() == f"{root}/data/test-00000-of-00001.parquet#0"


@pytest.mark.server
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hf://datasets/acme/nothing/data", "no such input: hf://datasets/acme/nothing/data"),
        (f"hf://{REPOSITORY}/nothing", f"no such input: hf://{REPOSITORY}/nothing"),
        (f"hf://{REPOSITORY}@main/data/*.jpg", "no images in"),
        ("hf://datasets", "hf://datasets"),
        ("hf://", "hf://"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_the_hub_does_not_have_is_one_line(url, message):
    with pytest.raises(SessError, match=message) as refused:
        read_inputs(url)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.server
@pytest.mark.usefixtures("hub")
def test_a_revision_of_a_dataset():
    for revision in ("main", "refs/convert/parquet"):
        root = f"hf://{REPOSITORY}@{revision}/data"
        assert listed(f"{root}/train-*.parquet") == TRAIN
