"""A job that faults are done to, seen from outside: by its processes and its files, with nothing of the library."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
RUN_SECONDS, LEAVE_SECONDS = 400, 30
RAYS = re.compile(r"\[\d{4}-\d\d-\d\d ")
MISSED = "missed"  # the fault came when the job was over


class Wrong(Exception):  # noqa: N818 - what a campaign looks for
    """A job did not do what it should."""


@dataclass(frozen=True)
class Place:
    """Where images and outputs lie: for the job a URL and flags, for the one who looks at it a path."""

    url: str
    path: str
    filesystem: fsspec.AbstractFileSystem
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Held:
    """What an output holds; `orphans` are files among its tables that are none."""

    maps: dict[tuple[str, int], bytes]
    errors: set[str]
    rows: int
    doubled: int
    files: int
    orphans: int
    counts: dict[str, int]


class Output:
    def __init__(self, filesystem: fsspec.AbstractFileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path

    def names(self, folder: str) -> list[str]:
        try:
            return self._filesystem.ls(f"{self._path}/{folder}", detail=False)
        except FileNotFoundError:
            return []

    def tables(self, folder: str) -> list[str]:
        return [name for name in self.names(folder) if name.endswith(".parquet")]

    def written(self) -> int:
        return len(self.tables("maps")) + len(self.tables("errors"))

    def has(self, name: str) -> bool:
        return self._filesystem.exists(f"{self._path}/{name}")

    def held(self) -> Held:
        if not self.has("run.json"):
            raise Wrong("no run.json")
        maps, errors = self._rows("maps"), self._rows("errors")
        found = {(row["image_id"], row["target"]): row["saliency"]["bytes"] for row in maps}
        failed = {row["image_id"] for row in errors}
        contradicted = failed & {image_id for image_id, _ in found}
        return Held(
            maps=found,
            errors=failed,
            rows=len(maps) + len(errors),
            doubled=len(maps) - len(found) + len(errors) - len(failed) + len(contradicted),
            files=self.written(),
            orphans=len(self.names("maps")) + len(self.names("errors")) - self.written(),
            counts=json.loads(self._filesystem.cat_file(f"{self._path}/run.json"))["counts"],
        )

    def _rows(self, folder: str) -> list[dict]:
        contents = [self._filesystem.cat_file(name) for name in self.tables(folder)]
        return [row for content in contents for row in pq.read_table(io.BytesIO(content)).to_pylist()]


class Job:
    """A command on an output, started as often as it takes.

    Parameters
    ----------
    name : str
        Name of its output.
    place : Place
        Where its images and its output are.
    files : int
        That the output will hold in the end, about.
    """

    def __init__(self, name: str, place: Place, files: int, rng: random.Random, log: Path, env: dict[str, str]) -> None:
        self.output = Output(place.filesystem, f"{place.path}/{name}")
        self.rng = rng
        self.attempts = 0
        self.moment = MISSED
        self.complaints: list[str] = []
        self._files = files
        self._log = log
        self._env = env
        self._sessions: list[int] = []
        flags = {
            "input": f"{place.url}/images",
            "output": f"{place.url}/{name}",
            "model": "tests.faults.tiny:model",
            "targets": "top2",
            "num-scales": "2",
            "overlays": "0",
            "actors": "2",
        }
        program = [sys.executable, str(ROOT / "jobs" / "explain_dataset.py")]
        self._command = [
            *program,
            *(part for key, value in flags.items() for part in (f"--{key}", value)),
            *place.flags,
        ]

    def start(self) -> None:
        self.attempts += 1
        with self._log.open("a") as log:
            # By their session its processes are told from others, even when it is dead.
            self.driver = subprocess.Popen(
                self._command, env=self._env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        self._sessions.append(self.driver.pid)
        self._since = time.monotonic()

    def expect(self, code: int, seconds: float = RUN_SECONDS) -> None:
        try:
            found = self.driver.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Wrong(f"attempt {self.attempts} runs on after {seconds} s") from None
        if found != code:
            raise Wrong(f"attempt {self.attempts} exits {found}, not {code}")

    def reach(self, share: float) -> None:
        """Wait until a share of the files is written, and a random moment longer; 0 is during start-up."""
        while self.driver.poll() is None:
            if self.output.has("started.json") and self.output.written() >= share * self._files:
                time.sleep(self.rng.uniform(0, 0.3 if share else 5))
                break
            time.sleep(0.02)

    def hit(self, what: str = "") -> bool:
        """Note that the fault happens now; False if the job is over."""
        if self.driver.poll() is not None:
            return False
        seconds = time.monotonic() - self._since
        self.moment = f"{self.output.written()}/{self._files} files, {seconds:.1f} s {what}".strip()
        return True

    def kill_one(self, *titles: str) -> None:
        """Kill a process of the job as soon as there is one with such a title: tasks last for milliseconds."""
        while self.driver.poll() is None:
            processes, end = self.processes(), time.monotonic() + 0.5
            while time.monotonic() < end:
                busy = {title: process for process in processes if (title := _title(process)).startswith(titles)}
                if busy:
                    title = self.rng.choice(sorted(busy))
                    with contextlib.suppress(psutil.NoSuchProcess):
                        busy[title].kill()
                        self.hit(title.partition("MapBatches(")[2].replace(")", ""))
                        return
                time.sleep(0.001)

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if _session(process.pid) in self._sessions]

    def leave(self) -> None:
        """Wait until its workers are gone and complain of those that stay; end what is left.

        Ray's agents outlive a driver that is killed by a minute, but they touch no output.
        """
        if self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        deadline = time.monotonic() + LEAVE_SECONDS
        while (titles := [*filter(_can_write, map(_title, self.processes()))]) and time.monotonic() < deadline:
            time.sleep(0.2)
        if titles:
            self.complaints.append(f"processes stay: {titles}")
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def last_words(self) -> str:
        """Return the last line that the command itself has said; what Ray still logs may come after it."""
        lines = (line.strip() for line in self._log.read_text().splitlines())
        *_, last = "", *(line for line in lines if line and not RAYS.match(line))
        return last[-200:]


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()).strip()
    return ""


def _can_write(title: str) -> bool:
    return bool(title) and not title.endswith("Agent")


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
