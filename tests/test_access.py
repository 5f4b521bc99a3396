"""Reading from a real web server that throttles, stalls, hangs up and lies; and what must not be written down."""

from __future__ import annotations

import dataclasses
import errno
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sess_ray import SessError, access
from sess_ray.access import Access, is_passing, one_line, patiently, persistent, public_text, read_files
from sess_ray.errors import RunError
from sess_ray.io.inputs import find_images
from sess_ray.pipeline.cluster.settings import parse_options
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.resume import FREE, settings

pytest.importorskip("aiohttp")


class Server(ThreadingHTTPServer):
    """Answers /STATUS.../name: the n-th request of a path gets the n-th status, from the last on 200."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: dict[str, int] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0]
        number = self.server.asked[path] = self.server.asked.get(path, 0) + 1
        plan = path.split("/")[1].split("-")
        status = plan[number - 1] if number <= len(plan) else "200"
        if status == "stall":
            time.sleep(3)
        elif status == "reset":
            self.connection.close()
            return
        content = b"0123456789"
        self.send_response(int(status) if status.isdigit() else 200)
        self.send_header("Content-Length", str(len(content) + (5 if status == "cut" else 0)))
        self.end_headers()
        self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def _restored():
    yield
    access.use(Access())


def read(server, *paths, **settings):
    access.use(Access(**({"timeout": 1.0, "patience": 20.0} | settings)))
    return read_files([f"{server.url}{path}" for path in paths])


@pytest.mark.slow
@pytest.mark.parametrize("failures", ["503", "429-503", "500-502", "reset", "cut", "stall"])
def test_what_passes_is_tried_again(server, failures):
    assert read(server, f"/{failures}/a") == [b"0123456789"]
    assert server.asked[f"/{failures}/a"] == len(failures.split("-")) + 1


def test_what_does_not_pass_is_not_and_costs_nobody_else(server):
    begin = time.monotonic()
    missing, forbidden, good, empty = read(server, "/404-404/416", "/403-403/b", "/200/b", "/416/b")
    assert time.monotonic() - begin < 3
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(forbidden, Exception)
    assert (good, empty) == (b"0123456789", b"")
    assert server.asked["/404-404/416"] == server.asked["/403-403/b"] == 1


@pytest.mark.slow
def test_patience_ends(server):
    begin = time.monotonic()
    [found] = read(server, "/" + "-".join(["503"] * 50) + "/c", patience=3.0)
    assert 0.5 < time.monotonic() - begin < 4
    assert isinstance(found, Exception)
    assert "503" in str(found)


def test_large_files_are_refused(server):
    [found] = read(server, "/200/d", max_bytes=9)
    assert isinstance(found, SessError)
    assert "--max-bytes" in str(found)
    assert read(server, "/200/e", max_bytes=10) == [b"0123456789"]


def test_one_image_by_its_address(server):
    access.use(Access(timeout=1.0))
    [item] = find_images(f"{server.url}/200/cat.jpg")
    assert (item.image_id, item.uri) == ("cat.jpg", f"{server.url}/200/cat.jpg")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.EIO, "io"), True),
        (OSError(errno.EBUSY, "SlowDown"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (ValueError("no"), False),
    ],
)
def test_which_errors_pass(error, passes):
    assert is_passing(error) is passes


@pytest.mark.parametrize(
    ("code", "status", "passes"),
    [
        ("InternalError", 500, True),
        ("SlowDown", 503, True),
        ("RequestTimeout", 408, True),
        ("NotImplemented", 501, False),
        ("NoSuchKey", 404, False),
        ("AccessDenied", 403, False),
        ("InvalidArgument", 400, False),
    ],
)
def test_which_answers_of_s3_pass(code, status, passes):
    exceptions = pytest.importorskip("botocore.exceptions")
    errors = pytest.importorskip("s3fs.errors")
    answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    given = exceptions.ClientError(answer, "PutObject")
    translated = errors.translate_boto_error(given)
    translated.__cause__ = given  # as s3fs raises it
    assert is_passing(translated) is passes


@pytest.mark.parametrize("name", ["EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"])
def test_which_failures_to_connect_pass(name):
    exceptions = pytest.importorskip("botocore.exceptions")
    assert is_passing(getattr(exceptions, name)(endpoint_url="http://host", error=None))


def test_a_call_is_repeated_while_its_errors_pass(monkeypatch):
    slept = []
    monkeypatch.setattr(access.time, "sleep", slept.append)
    errors = [ConnectionError(), TimeoutError()]

    def call(value):
        if errors:
            raise errors.pop()
        return value

    assert patiently(call, 7) == 7
    assert len(slept) == 2
    assert 0.5 <= slept[0] <= 1
    assert 1 <= slept[1] <= 2
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 // 0)
    assert len(slept) == 2


def test_an_iteration_goes_on_where_it_broke(monkeypatch):
    monkeypatch.setattr(access.time, "sleep", lambda _: None)
    broken = {3, 4, 8}

    def start(had):
        for number in range(had, 10):
            if number in broken:
                broken.remove(number)
                raise ConnectionResetError
            yield number

    assert list(persistent(start)) == list(range(10))

    def hopeless(had):
        yield from range(had, 2)
        raise PermissionError

    left = persistent(hopeless)
    assert (next(left), next(left)) == (0, 1)
    with pytest.raises(PermissionError):
        next(left)


def test_credentials_do_not_show():
    error = OSError("GET https://me:hunter2@host/a.jpg?X-Amz-Signature=5ecret&x=1 failed\nbadly")
    assert one_line(error) == "OSError: GET https://host/a.jpg?x=1 failed badly"
    assert public_text("abfs://container@account/a and gs://b/c?d") == "abfs://container@account/a and gs://b/c?d"
    assert "5ecret" not in access.public_option('s3.client_kwargs={"aws_secret": "5ecret"}')
    for given in ("s3", "s3.anon", "=x", "s3.=1", "s3.client_kwargs={no json", "s4.anon=true", "S3.anon=true"):
        with pytest.raises(SessError, match="--storage-option"):
            parse_options([given])


def test_an_option_of_two_values_is_refused():
    assert parse_options(["s3.anon=true", "s3.anon=true"]) == {"s3": {"anon": True}}
    with pytest.raises(SessError, match=r"--storage-option s3.anon is given twice, with two values: give one of them"):
        parse_options(["s3.anon=true", "s3.profile=me", "s3.anon=false"])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "/a/b\nc"), "no such file: /a/b c"),
        (FileNotFoundError("bucket/a.jpg"), "no such file: bucket/a.jpg"),
        (PermissionError(13, "Permission denied", b"/a"), "no permission: /a"),
        (FileNotFoundError(), "no such file"),
        (NotADirectoryError(20, "Not a directory", "/a"), "Not a directory: /a"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("cannot seek"), "OSError: cannot seek"),
        (RunError("why"), "why"),
    ],
)
def test_what_a_system_says_is_told_without_pythons_names(error, told):
    assert one_line(error) == told


def test_settings_are_written_without_credentials():
    url = "https://me:hunter2@host/file?X-Amz-Signature=5ecret"
    places = dict.fromkeys(("input", "weights", "class_names", "annotations", "class_map"), url)
    config = ExplainConfig(**places, storage_option=("s3.secret=5ecret", "s3.anon=true"))
    evaluation = EvaluateConfig(run=(f"base={url}",), images=url, storage_option=("gs.token=5ecret",))
    for written in (config.public(), settings(config), evaluation.public()):
        assert "5ecret" not in json.dumps(written)
        assert "hunter2" not in json.dumps(written)
    assert config.public()["storage_option"] == ["s3.secret=***", "s3.anon=true"]
    assert evaluation.public()["run"] == ["base=https://host/file"]
    assert {field.name for field in dataclasses.fields(ExplainConfig)} >= FREE
