"""Small files from a web server that fails at first; and what an error shows of their addresses."""

from __future__ import annotations

import io
import json
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sess_ray import SessError, access, load_model
from sess_ray.access import Access
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import ClassMap
from sess_ray.io.inputs import list_images
from sess_ray.io.names import read_class_names
from sess_ray.models.checkpoints import read_state

pytest.importorskip("aiohttp")

SIGNED = "?X-Amz-Signature=SECRET&X-Amz-Expires=60"


def saved(write, *given):
    buffer = io.BytesIO()
    write(*given, buffer)
    return buffer.getvalue()


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
}
FILES = {
    "names.txt": b"tench\ngoldfish\n",
    "map.json": b'{"cat": 281}',
    "coco.json": json.dumps(COCO).encode(),
    "m.csv": b"uri,id\na.jpg,1\nb.jpg,2\n",
    "m.jsonl": b'{"uri": "a.jpg", "id": "1"}\n{"uri": "b.jpg", "id": "2"}\n',
    "m.parquet": saved(pq.write_table, pa.table({"uri": ["a.jpg", "b.jpg"], "id": ["1", "2"]})),
    "w.pth": saved(torch.save, {"a": torch.ones(2)}),
}
READERS = {
    "names.txt": (read_class_names, ["tench", "goldfish"]),
    "map.json": (lambda url: ClassMap.read(url).entries, {"cat": (281,)}),
    "coco.json": (lambda url: read_annotations(url).labels(), ["cat"]),
    "m.csv": (lambda url: list_images(url)["image_id"].to_pylist(), ["1", "2"]),
    "m.jsonl": (lambda url: list_images(url)["image_id"].to_pylist(), ["1", "2"]),
    "m.parquet": (lambda url: list_images(url)["image_id"].to_pylist(), ["1", "2"]),
    "w.pth": (lambda url: {name: value.tolist() for name, value in read_state(url)[0].items()}, {"a": [1.0, 1.0]}),
}


class Handler(BaseHTTPRequestHandler):
    """Answers /FAILURES/NAME: so many requests of a path get 503, then the file comes, or a part of it."""

    def do_GET(self):
        _, failures, name = self.path.partition("?")[0].split("/")
        left = self.server.left.setdefault(f"{failures}/{name}", int(failures))
        content = FILES.get(name, b"")
        status = 404 if name not in FILES else 200
        if status == 200 and self.command == "GET" and left:
            self.server.left[f"{failures}/{name}"] -= 1
            status = 503
        begin, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if status == 200 and begin:
            content, status = content[int(begin) : int(end) + 1 if end else None], 206
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads, running.left = True, {}
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(access, "LONGEST_WAIT", 0.05)
    yield
    access.use(Access())


@pytest.mark.parametrize("name", FILES)
def test_every_small_file_is_tried_again(server, name):
    access.use(Access(patience=20.0))
    read, expected = READERS[name]
    assert read(f"http://127.0.0.1:{server.server_port}/2/{name}") == expected
    assert server.left[f"2/{name}"] == 0


@pytest.mark.parametrize(
    "read",
    [
        *(reader for reader, _ in READERS.values()),
        lambda url: load_model("squeezenet1_1", url),
        lambda url: load_model("squeezenet1_1", url.replace("w.pth", "names.txt")),
    ],
)
@pytest.mark.parametrize("name", ["gone", "w.pth"])
def test_no_error_shows_a_signature_or_a_password_not_even_in_a_notebook(server, read, name):
    access.use(Access(patience=0.1))
    url = f"http://user:PASSWORD@127.0.0.1:{server.server_port}/0/{name}{SIGNED}"
    with pytest.raises(SessError) as caught:
        read(url) and read_class_names(url.replace(name, "gone"))
    shown = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in shown
    assert "PASSWORD" not in shown
