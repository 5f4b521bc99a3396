"""A server on this machine that gives its files to whoever signs."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SECRET = "5ecret" * 8
SIGNED = (
    f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA{SECRET}/20261126/s3/aws4_request&X-Amz-Signature={SECRET}"
)


def picture(color):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "PNG")
    return buffer.getvalue()


def shard():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("a/1.png")
        member.size = len(picture("red"))
        tar.addfile(member, io.BytesIO(picture("red")))
    return buffer.getvalue()


def packed():
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [picture("red"), picture("blue")]}), buffer)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Gives its files to whoever signs; and `get?key=COLOUR` to all."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/get":
            content = picture(query.partition("key=")[2].partition("&")[0])
        else:
            content = self.server.files.get(path) if SECRET in query else None
        self.send_response(403 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """Serve an image, manifests of three, a table of bytes and a shard; give the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        lines = [f"{url}/photos/1.png?{SIGNED}", f"{url}/get?key=red", f"{url}/get?key=blue"]
        server.files = {
            "/photos/1.png": picture("red"),
            "/m.csv": "\n".join(["uri", *lines]).encode(),
            "/job.csv": "\n".join(["uri", *lines, f"{url}/photos/gone.png?{SIGNED}"]).encode(),
            "/m.jsonl": "\n".join(json.dumps({"uri": line}) for line in lines).encode(),
            "/p.parquet": packed(),
            "/s.tar": shard(),
        }
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield url
        server.shutdown()
