"""Servers of object storage on this machine, for tests that must see one fail."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import s3fs

KEY, SECRET = "k", "s"
START_SECONDS = 90
PROBE = "probe"  # a bucket


class Seaweed:
    """SeaweedFS with its S3 gateway on loopback, one process on one folder: it may be killed and started again.

    Parameters
    ----------
    folder : Path
        What it stores, and its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        ports = dict(zip([*names, *(f"{name}.grpc" for name in names)], free_ports(8), strict=True))
        self.endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        credentials = [{"accessKey": KEY, "secretKey": SECRET}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [{"name": "t", "credentials": credentials, "actions": actions}]}))
        self._sockets = tempfile.TemporaryDirectory(prefix="weed")  # short: their paths have 107 characters at most
        settings = {
            "dir": folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            **ports,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": config,
            "s3.localSocket": Path(self._sockets.name) / "s3",
            "filer.localSocket": Path(self._sockets.name) / "filer",
            "master.volumeSizeLimitMB": 100,
            "master.telemetry": "false",
            "master.electionTimeout": "1s",  # of the only candidate: half of a start
            "volume.max": 20,
        }
        self._command = [
            Path(sys.executable).with_name("weed"),
            "-logtostderr=true",
            "server",
            "-s3",
            *(f"-{name}={value}" for name, value in settings.items()),
        ]
        (folder / "data").mkdir()
        self.start()

    @property
    def options(self) -> list[str]:
        """Values of --storage-option."""
        return [f"s3.endpoint_url={self.endpoint}", f"s3.key={KEY}", f"s3.secret={SECRET}"]

    def filesystem(self) -> s3fs.S3FileSystem:
        """Return a client that remembers no listings."""
        return s3fs.S3FileSystem(
            endpoint_url=self.endpoint, key=KEY, secret=SECRET, use_listings_cache=False, skip_instance_cache=True
        )

    def start(self) -> None:
        """Start the server on what its folder holds, and wait until it takes writes."""
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        client, deadline = self.filesystem(), time.monotonic() + START_SECONDS
        while True:
            try:
                if not client.exists(PROBE):
                    client.mkdir(PROBE)
                client.pipe_file(f"{PROBE}/object", b"")
                return
            except OSError as error:
                late = time.monotonic() > deadline
                if late or self._process.poll() is not None:
                    self.kill()
                    raise RuntimeError(f"SeaweedFS does not start: {(self._folder / 'log').read_text()}") from error
                time.sleep(0.3)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let requests wait without an answer, until `resume`."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        self._sockets.cleanup()


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[Seaweed]:
    """Run a server of S3 on an empty folder."""
    server = Seaweed(folder)
    try:
        yield server
    finally:
        server.close()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]
