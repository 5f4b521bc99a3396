"""A job that faults are done to, seen from outside: by its processes and its files, with nothing of the library."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
PROGRAM = (str(ROOT / "jobs" / "explain_dataset.py"),)
RUN_SECONDS, LEAVE_SECONDS = 400, 30
RAYS = re.compile(r"\[\d{4}-\d\d-\d\d ")
PIECE = re.compile(r"(\d{6,})-(\d+)-")  # a span, and how many of its rows are there
JOINED = re.compile(r"-g(\d+)(?:v\d+)?\.parquet$")
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
    is_cluster: bool = False  # its workers are not the job's children, but this process's


@dataclass(frozen=True)
class Held:
    """What an output holds; `orphans` are files among its tables that are none."""

    maps: dict[tuple[str, int], bytes]
    errors: set[str]
    rows: int
    doubled: int
    files: int
    written: int
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

    def files(self) -> int:
        return len(self.tables("maps")) + len(self.tables("errors"))

    def written(self) -> int:
        """Return how many files there are; those of spans as if they had never been joined, for two rows each."""
        names = (name.rpartition("/")[2] for folder in ("maps", "errors") for name in self.tables(folder))
        return sum(-(-int(found[2]) // 2) if (found := PIECE.match(name)) else 1 for name in names)

    def half_joined(self) -> int:
        """Return how many times a folder has both the files of a span and what they were joined to."""
        files = (name.rpartition("/") for folder in ("maps", "errors") for name in self.tables(folder))
        kinds = {(folder, name.partition("-")[0], (JOINED.search(name) or ["", ""])[1]) for folder, _, name in files}
        return len(kinds) - len({kind[:2] for kind in kinds})

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
            files=self.files(),
            written=self.written(),
            orphans=len(self.names("maps")) + len(self.names("errors")) - self.files(),
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
    program : sequence of str
        What is run with the flags.
    images : str
        The input, where the images are.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        files: int,
        rng: random.Random,
        log: Path,
        env: dict[str, str],
        program: Sequence[str] = PROGRAM,
        images: str = "images",
    ) -> None:
        self.output = Output(place.filesystem, f"{place.path}/{name}")
        self.rng = rng
        self.attempts = 0
        self.moment = MISSED
        self.complaints: list[str] = []
        self._files = files
        self._is_cluster = place.is_cluster
        self._log = log
        self._env = env
        self._sessions: list[int] = []
        self._others: list[Job] = []
        flags = {
            "input": f"{place.url}/{images}",
            "output": f"{place.url}/{name}",
            "model": "tests.faults.tiny:model",
            "targets": "top2",
            "num-scales": "2",
            "overlays": "0",
            "actors": "2",
        }
        self._command = [
            sys.executable,
            *program,
            *(part for key, value in flags.items() for part in (f"--{key}", value)),
            *place.flags,
        ]

    @property
    def starts(self) -> int:
        """How often it was started, and others beside it."""
        return self.attempts + sum(other.starts for other in self._others)

    def second(self) -> Job:
        """Return the same command on the same output, to be run beside this one."""
        if not self._others:
            other = copy.copy(self)
            other._log, other._sessions, other._others = self._log.with_suffix(".second.log"), [], []
            other.attempts = 0
            self._others.append(other)
        return self._others[0]

    def start(self, *flags: str) -> None:
        self.attempts += 1
        with self._log.open("a") as log:
            # By their session its processes are told from others, even when it is dead.
            self.driver = subprocess.Popen(
                [*self._command, *flags], env=self._env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
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
        self.note(what)
        return True

    def note(self, what: str = "") -> None:
        """Note when the fault happened, and what there was of the output."""
        seconds = time.monotonic() - self._since
        halves = f"{halves} half joined" if (halves := self.output.half_joined()) else ""
        self.moment = " ".join(f"{self.output.written()}/{self._files} files, {seconds:.1f} s {what} {halves}".split())

    def kill_one(self, *titles: str, seconds: float = 0.0) -> None:
        """Kill a process of the job as soon as there is one with such a title, or up to so many seconds later."""
        for process in self._busy(titles):
            title = _title(process)
            time.sleep(self.rng.uniform(0, seconds))
            if seconds and _title(process) != title:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                self.hit(title.partition("MapBatches(")[2].replace(")", ""))
                return

    def wait_for(self, *titles: str, seconds: float = 0.0) -> psutil.Process | None:
        """Return a process with such a title, up to so many seconds after there is one; None if the job is over."""
        for process in self._busy(titles):
            time.sleep(self.rng.uniform(0, seconds))
            return process
        return None

    def _busy(self, titles: tuple[str, ...]) -> Iterator[psutil.Process]:
        """Yield processes with such titles, one at a time, until the job is over: tasks last for milliseconds."""
        while self.driver.poll() is None:
            processes, end = self.workers(), time.monotonic() + 0.5
            while time.monotonic() < end:
                busy = {title: process for process in processes if (title := _title(process)).startswith(titles)}
                if busy:
                    yield busy[self.rng.choice(sorted(busy))]
                time.sleep(0.001)

    def power_off(self, first: psutil.Process) -> None:
        """Kill all processes of the job, one before the others."""
        for process in (first, *self.processes()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if _session(process.pid) in self._sessions]

    def workers(self) -> list[psutil.Process]:
        return psutil.Process().children(recursive=True) if self._is_cluster else self.processes()

    def leave(self) -> None:
        """Wait until its workers are gone and complain of those that stay; end what is left.

        Ray's agents outlive a driver that is killed by a minute, but they touch no output.
        """
        for other in self._others:
            other.leave()
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
