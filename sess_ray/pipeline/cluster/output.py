"""What all jobs say of outputs: where maps are read, what is there already, and which versions made it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.io.store import Store


def map_files(store: Store, name: str) -> list[str]:
    """Return the files of maps of a run; `SessError`, which says `name`, where it has none."""
    files = store.tables("maps")
    if not files:
        raise SessError(f"{name} has no maps: give the --output of sess-ray explain")
    return files


def refuse_used(store: Store, contents: Sequence[str], what: str, *, overwrite: bool) -> None:
    """Raise `SessError` where an output has any of `contents` ("an evaluation") and they are not to be replaced."""
    if not overwrite and store.is_used(contents):
        raise SessError(f"output {public(store.url)} has {what} already: add --overwrite, or choose another --output")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of packages, for the record of a run."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
