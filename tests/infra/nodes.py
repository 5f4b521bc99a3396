"""A Ray cluster as an operator starts it: `ray start` for each node, here all on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import psutil
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.job_submission import JobStatus, JobSubmissionClient

from tests.cloud.servers import free_ports
from tests.infra.files import ROOT

PAUSE, WAITS = 0.1, 3000
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
COMMANDS = ("initialization_", "setup_", "head_setup_", "worker_setup_", "head_start_ray_", "worker_start_ray_")
ACTOR, RAYLET = "ray::MapWorker(MapBatches(ExplainActor))", "/raylet/raylet"
# A node that is gone refuses at once and is seen within ten seconds; one that is only slow has four times as many.
HEALTH = {
    "health_check_initial_delay_ms": 3000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 10,
}


class Nodes:
    """Nodes of one cluster, each with its processes.

    Parameters
    ----------
    folder : Path
        Where the head is started, and jobs with it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sockets = tempfile.mkdtemp(prefix="ray")  # short: their paths have 107 characters at most
        self._started: dict[psutil.Popen, Path] = {}  # with their logs
        gcs, dashboard, client = free_ports(3)
        self.address = f"127.0.0.1:{gcs}"
        self._head = {
            "port": gcs,
            "ray-client-server-port": client,
            "dashboard-port": dashboard,
            "dashboard-host": "127.0.0.1",
            "temp-dir": self._sockets,
        }
        binaries = Path(sys.executable).parent
        self._ray = binaries / "ray"
        self._env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "PYTHONPATH": str(ROOT),  # instead of the package that the image holds
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        }

    def start_head(self, params: dict[str, str], env: dict[str, str] | None = None) -> psutil.Popen:
        """Start the head with parameters of `ray start`, and wait until it takes jobs."""
        system = json.dumps(HEALTH, separators=(",", ":"))
        head = self._start(["--head"], {"system-config": system, **params, **self._head}, env)
        # Its dashboard answers before the agent that starts jobs is up.
        wait_for(self._takes_jobs, self)
        return head

    def start_worker(self, params: dict[str, str], env: dict[str, str] | None = None, tries: int = 3) -> psutil.Popen:
        """Start a node, and wait until it has joined; one that does not, as on a busy machine, is started again."""
        worker = self._start([], {"address": self.address, **params}, env)
        log = self._started[worker]
        wait_for(lambda: worker.poll() is not None or "runtime started" in log.read_text(), self)
        if worker.poll() is None:
            return worker
        assert tries > 1, self.logs()
        return self.start_worker(params, env, tries - 1)

    def _start(self, flags, params, env) -> psutil.Popen:
        # The agents of other clusters on this machine hold the default ports.
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port")
        given = {**dict(zip(names, free_ports(2), strict=True)), "node-ip-address": "127.0.0.1", **params}
        arguments = [*flags, "--block", *(f"--{name}={value}" for name, value in given.items())]
        log = Path(self._sockets) / f"{len(self._started)}.log"
        with log.open("w") as output:
            node = psutil.Popen(
                [self._ray, "start", *arguments],
                env=self._env | (env or {}),
                cwd=self._folder,
                stdout=output,
                stderr=output,
            )
        self._started[node] = log
        return node

    def submit(self, entrypoint: str, name: str, *options: str) -> None:
        """Submit a job as KubeRay does; it runs on by itself."""
        done = self.run("job", "submit", "--no-wait", "--submission-id", name, *options, "--", *entrypoint.split())
        assert not done.returncode, done.stdout + done.stderr

    def finish(self, name: str) -> None:
        """Wait until a job is over; it must have succeeded."""
        wait_for(lambda: self.jobs.get_job_status(name).is_terminal(), self)
        assert self.jobs.get_job_status(name) == JobStatus.SUCCEEDED, self.jobs.get_job_logs(name)

    @cached_property
    def jobs(self) -> JobSubmissionClient:
        return JobSubmissionClient(self._env["RAY_API_SERVER_ADDRESS"])

    def _takes_jobs(self) -> bool:
        try:
            return bool(self.jobs.submit_job(entrypoint="true"))
        except (OSError, RuntimeError):  # nobody listens, or no agent
            return False

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run `ray` with arguments, as somebody to whom the dashboard's port is forwarded."""
        return subprocess.run(
            [self._ray, *arguments], env=self._env, cwd=self._folder, capture_output=True, text=True, check=False
        )

    def logs(self) -> str:
        """Return the ends of the logs of nodes and jobs."""
        jobs = sorted(Path(self._sockets).glob("session_latest/logs/job-driver-*"))
        return "\n".join(path.read_text()[-3000:] for path in [*self._started.values(), *jobs])

    def close(self) -> None:
        for node in self._started:
            kill(node)
        shutil.rmtree(self._sockets, ignore_errors=True)


def wait_for(condition: Callable[[], bool], nodes: Nodes) -> None:
    """Wait for something that happens on nodes."""
    for _ in range(WAITS):  # and no clock: a machine may stop all of us for a while
        if condition():
            return
        time.sleep(PAUSE)
    raise AssertionError(nodes.logs())


def kill(node: psutil.Process) -> None:
    """End a node at once with all that runs on it, as when its machine is taken away."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [node, *node.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait(timeout=60)


def actors(node: psutil.Process) -> int:
    """Return how many actors a node runs."""
    return _processes(node, ACTOR)


def raylets(node: psutil.Process) -> int:
    """Return how many nodes run in a process: the head, and those that its autoscaler has started."""
    return _processes(node, RAYLET)


def _processes(node: psutil.Process, part: str) -> int:
    count = 0
    for process in node.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            count += part in " ".join(process.cmdline()[:1])
    return count


def autoscaling(folder: Path, nodes: Nodes, workers: dict) -> tuple[dict[str, str], dict[str, str]]:
    """Return parameters and environment of a head whose autoscaler starts its machines as processes.

    The autoscaler is the real one; its provider, for tests, comes with Ray.
    """
    provider = {"type": "external", "module": PROVIDER, "gcs_address": nodes.address, "head_node_id": FAKE_HEAD_NODE_ID}
    config = {
        "cluster_name": "fake",
        "max_workers": sum(kind["max_workers"] for kind in workers.values()),
        "idle_timeout_minutes": 0.1,
        "provider": {**provider, "launch_multiple": True, "disable_node_updaters": True, "use_node_id_as_ip": True},
        "available_node_types": {
            **{name: {"node_config": {}, "min_workers": 0, **kind} for name, kind in workers.items()},
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{name}commands": [] for name in COMMANDS},
    }
    file = folder / "autoscaling.yaml"
    file.write_text(json.dumps(config))
    env = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    return {"autoscaling-config": str(file)}, env
