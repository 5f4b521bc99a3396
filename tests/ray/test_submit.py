"""`ray job submit` on a real head."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ray(*arguments, env, **options):
    command = Path(sys.executable).parent / "ray"
    return subprocess.run(
        [command, *map(str, arguments)], env=env, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def head():
    """A head of its own, on ports of its own; only its own processes are ended."""
    folder = tempfile.mkdtemp(prefix="ray")  # short: the path of a socket has 107 characters at most
    binaries = Path(sys.executable).parent
    settings = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}  # the job runs in this environment
    env = {**os.environ, **settings, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    env.pop("RAY_ADDRESS", None)
    dashboard = free_port()
    options = {
        "port": free_port(),
        "ray-client-server-port": free_port(),
        "dashboard-port": dashboard,
        "dashboard-host": "127.0.0.1",
        # The agents of the suite's own session hold the default ports, and without its agent a head starts no job.
        "dashboard-agent-listen-port": free_port(),
        "dashboard-agent-grpc-port": free_port(),
        "node-ip-address": "127.0.0.1",
        "num-cpus": 4,
        "temp-dir": folder,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with (Path(folder) / "head.log").open("w") as log:
        running = psutil.Popen(
            [binaries / "ray", "start", "--head", "--block", *arguments], env=env, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 120
    while ray("job", "list", "--address", address, env=env).returncode:
        assert time.monotonic() < deadline, (Path(folder) / "head.log").read_text()
        time.sleep(1)
    yield address, env
    for process in [*running.children(recursive=True), running]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    running.wait(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_job_writes_its_maps(head, tmp_path):
    address, env = head
    images = tmp_path / "images"
    images.mkdir()
    for i in range(3):
        Image.new("RGB", (300 + i, 260), (80 * i, 90, 120)).save(images / f"{i}.png")
    # Shipped as a user ships it: the checkout without what .gitignore names.
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("sess_ray", "jobs", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout / name)
    arguments = ["--input", images, "--output", tmp_path / "out", "--model", "squeezenet1_1", "--weights", "random"]
    submission = [
        *("job", "submit", "--address", address, "--working-dir", ".", "--"),
        *("python", "jobs/explain_dataset.py", *arguments, "--num-scales", "2", "--targets", "top2"),
    ]
    deadline = time.monotonic() + 120
    while True:
        done = ray(*submission, env=env, cwd=checkout, timeout=300)
        # The head answers some seconds before the agent that starts jobs is up.
        if "No available agent" not in done.stderr + done.stdout or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout.lower()
    assert "3 images, 6 maps, 0 errors" in done.stdout
    table = pq.read_table(tmp_path / "out" / "maps")
    assert sorted(zip(table["image_id"].to_pylist(), strict=True)) == [
        (f"{i}.png",) for i in range(3) for _ in range(2)
    ]
