"""Who works on an output: a file that a run renews, so that another one waits, takes over, or says who it is.

The file has a number. Who finds that its owner is dead creates the one of the next number, which only one can do where
the store has that (a local disk, S3, Google's, Azure's); the owner of a lower number stops. Clocks are not compared: an
owner is dead where nothing has renewed its file for a while, or at once where its process was on this machine.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import posixpath
import re
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from types import TracebackType
from typing import Any, Self

import psutil

from sess_ray.access import open_filesystem, patiently, public
from sess_ray.errors import RunError, SessError
from sess_ray.io.store import Store
from sess_ray.opening import is_local

BEAT = 10.0  # seconds between two renewals
SILENT = 4  # beats that are missed by who is dead
LOOK = 1.0  # seconds between two looks of who waits
LAST = 5.0  # seconds for a renewal that is on its way when a run ends
_NAME = re.compile(r"\.lease-(\d{6,})\.json")

logger = logging.getLogger("sess_ray")


@dataclass(frozen=True)
class Owner:
    """A run that works on an output.

    Attributes
    ----------
    run : str
        Another in every run.
    who : str
        For people: user, machine, process.
    since : str
    machine : str
        Another after each start of the machine, and in each container.
    process : int
    born : float
        When the process began; its number may be another one's later.
    beat : float
        Seconds between two renewals.
    beats : int
        Renewals so far.
    """

    run: str
    who: str
    since: str
    machine: str
    process: int
    born: float
    beat: float
    beats: int = 0

    def lives(self) -> bool | None:
        """Say whether its process runs; None where that is not to be seen from here."""
        if self.machine != _machine():
            return None
        try:
            process = psutil.Process(self.process)
            return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.born) < 1
        except psutil.NoSuchProcess:
            return False


@cache
def _machine() -> str:
    parts = [platform.node()]
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        parts.append(file.read().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):  # a container whose user has no name
        return platform.node()


class Lease:
    """The right to work on an output: taken once, renewed by a thread, and given back at the end.

    Parameters
    ----------
    wait : bool
        Wait for who works there, instead of refusing.
    beat : float
        Seconds between two renewals.

    Examples
    --------
    >>> with Lease() as lease:  # doctest: +SKIP
    ...     lease.take(Store("out"))
    ...     lease.check()
    """

    def __init__(self, *, wait: bool = False, beat: float = BEAT) -> None:
        self._wait, self._beat = wait, beat
        self._store: Store | None = None
        self._number = 0
        self._lost = ""
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        process = psutil.Process()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        who = f"{_user()}, process {process.pid}"
        self._owner = Owner(uuid.uuid4().hex, who, since, _machine(), process.pid, process.create_time(), beat)

    @property
    def is_taken(self) -> bool:
        return self._store is not None

    def take(self, store: Store) -> bool:
        """Take an output; return whether another run has worked there since this was called.

        Raises
        ------
        SessError
            If another run works there, and this one shall not wait.
        """
        seen: tuple[int, Owner | None] | None = None
        since, told = time.monotonic(), False
        while True:
            found = _newest(store)
            if found != seen:
                moves = seen is not None and found is not None and found[0] == seen[0]
                seen, since = found, time.monotonic()
            else:
                moves = False
            if found is None or self._is_dead(found[1], time.monotonic() - since):
                number = found[0] + 1 if found else 1
                if found and found[1]:
                    logger.warning("output %s: goes on where %s has died", public(store.url), found[1].who)
                if self._created(store, number):
                    self._begin(store, number)
                    return told
                continue
            owner = found[1]
            if owner is not None and (moves or owner.lives()) and not self._wait:
                raise SessError(
                    f"{owner.who} has worked on output {public(store.url)} since {owner.since}: wait for it (--wait),"
                    " stop it, or choose another --output"
                )
            if not told and owner is not None:
                logger.warning("output %s: waits for %s, if it lives", public(store.url), owner.who)
                told = True
            time.sleep(min(LOOK, self._beat))

    def check(self) -> None:
        """Raise `RunError` where another run has taken over."""
        if self._lost:
            raise RunError(self._lost)

    def release(self) -> None:
        """Give the output back."""
        self._over.set()
        store, self._store = self._store, None
        if store:
            self._renewing.join(LAST)  # or it might write the file again
        if store and not self._lost:
            _drop(store, _name(self._number))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _is_dead(self, owner: Owner | None, unchanged: float) -> bool:
        if owner is None:  # not yet written, or never
            return unchanged > SILENT * self._beat
        return owner.lives() is False or (owner.lives() is None and unchanged > SILENT * owner.beat)

    def _created(self, store: Store, number: int) -> bool:
        if create(store, _name(number), _content(self._owner)):
            return True
        found = _read(store, number)  # an attempt that seemed to fail may have been ours
        return found is not None and found.run == self._owner.run

    def _begin(self, store: Store, number: int) -> None:
        self._store, self._number = store, number
        for older in _numbers(store):
            if older < number:
                _drop(store, _name(older))
        self._renewing.start()

    def _renew(self) -> None:
        while (store := self._store) and not self._over.wait(self._beat):
            try:
                numbers, own = _numbers(store), _read(store, self._number)
                if max(numbers, default=0) > self._number or own is None or own.run != self._owner.run:
                    newest = _newest(store)
                    who = newest[1].who if newest and newest[1] else "another run"
                    self._lost = f"{who} has taken over output {public(store.url)}: this run stops"
                    return
                if not self._over.is_set():
                    self._owner = replace(self._owner, beats=self._owner.beats + 1)
                    store.write(_name(self._number), _content(self._owner))
            except Exception:  # noqa: S112 - the store is down: then nobody else takes over
                continue


# --- files, of which at most one writer may make each ---


def create(store: Store, name: str, content: bytes) -> bool:
    """Write a file that is not there; say whether it was not. Of several who do so at a time one hears that.

    A store that knows no such thing (some that speak S3) overwrites it: there the last one is right.
    """
    filesystem, root = open_filesystem(store.url)
    place = f"{root}/{name}"
    try:
        if is_local(filesystem):
            os.makedirs(root, exist_ok=True)
            with open(place, "xb") as file:
                file.write(content)
        else:
            patiently(filesystem.pipe_file, place, content, mode="create")
    except FileExistsError:
        return False
    except Exception:  # how else it is said that there is one; or that the store knows no such condition
        if patiently(filesystem.exists, place):
            return False
        store.write(name, content)
    return True


def _drop(store: Store, name: str) -> None:
    """Remove a file, if that can be done at once."""
    filesystem, root = open_filesystem(store.url)
    with suppress(Exception):
        filesystem.rm_file(f"{root}/{name}")


def _files(store: Store) -> list[str]:
    """Return the names of the files and folders that lie in the store itself."""
    filesystem, root = open_filesystem(store.url)
    filesystem.invalidate_cache()
    try:
        found = patiently(filesystem.ls, root, detail=False)
    except FileNotFoundError:
        return []
    return [posixpath.basename(path.rstrip("/")) for path in found]


def _name(number: int) -> str:
    return f".lease-{number:06}.json"


def _content(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode()


def _numbers(store: Store) -> list[int]:
    found = (_NAME.fullmatch(name) for name in _files(store))
    return sorted(int(match[1]) for match in found if match)


def _newest(store: Store) -> tuple[int, Owner | None] | None:
    """Return the highest number and its owner, who may not be written yet; None where nobody is."""
    numbers = _numbers(store)
    return (numbers[-1], _read(store, numbers[-1])) if numbers else None


def _read(store: Store, number: int) -> Owner | None:
    try:
        found: dict[str, Any] | None = store.read_json(_name(number))
        return None if found is None else Owner(**found)
    except (ValueError, TypeError):
        return None
