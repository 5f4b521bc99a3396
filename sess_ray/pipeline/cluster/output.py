"""What all jobs say of outputs: where maps are read, what is there already, and which versions made it."""

from __future__ import annotations

import platform
import posixpath
from collections.abc import Sequence
from importlib.metadata import version

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.io.listing import WRITTEN
from sess_ray.io.places import resolved
from sess_ray.io.store import STARTED, Store


def map_files(store: Store, name: str) -> list[str]:
    """Return the files of maps of a run; `SessError`, which says `name`, where it has none."""
    files = store.tables("maps")
    if not files:
        raise SessError(f"{name} has no maps: give the --output of sess-ray explain")
    return files


def refuse_inside_run(store: Store) -> None:
    """Raise `SessError` where an output lies among the maps of a run, which would be taken for more of them."""
    place = resolved(store.url)
    while name := posixpath.basename(place):
        place = posixpath.dirname(place)
        if name in WRITTEN and Store(place).is_used([STARTED]):
            url = public(store.url)
            raise SessError(f"output {url} lies among the files of a run, in its {name}/: choose another --output")


def refuse_used(store: Store, contents: Sequence[str], what: str, *, overwrite: bool) -> None:
    """Raise `SessError` where an output has any of `contents` ("an evaluation") and they are not to be replaced.

    So it does where the output lies among the files of a run.
    """
    refuse_inside_run(store)
    if not overwrite and store.is_used(contents):
        raise SessError(f"output {public(store.url)} has {what} already: add --overwrite, or choose another --output")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of packages, for the record of a run."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
