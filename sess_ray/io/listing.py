"""Which files lie below a folder, page by page where the file system allows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import fsspec

from sess_ray.access import patiently
from sess_ray.io.buckets import gcs_names, s3_names
from sess_ray.io.items import whole_uri
from sess_ray.io.places import is_below, resolved
from sess_ray.opening import is_local, readable

Place = tuple[int, int]  # of a folder on this machine: its device, and its number there
BEGUN = "started.json"  # in an output, says of which run
WRITTEN = ("maps", "errors", "overlays")  # folders of the output of the explain job


def apart_from(output: str | None, paths: Iterable[str], url: str, root: str) -> Iterator[str]:
    """Yield the paths below a root but those that a job writes into its output.

    Where the output is the root itself, only what the job writes is left out.
    """
    folder, place = resolved(url or "."), None if output is None else resolved(output)
    if place is None:
        return iter(paths)
    whole = [f"{place.rstrip('/')}/{name}" for name in WRITTEN] if place == folder else [place]
    if any(is_below(folder, one) for one in whole):
        return iter(paths)  # what was written is asked for
    if "://" not in place:
        return _elsewhere(paths, whole)
    inside = tuple(f"{root.rstrip('/')}/{one[len(folder) :].strip('/')}/" for one in whole if is_below(one, folder))
    return (path for path in paths if not path.startswith(inside))


def _elsewhere(paths: Iterable[str], folders: list[str]) -> Iterator[str]:
    """Yield the files of this machine that do not lie in some folders, whatever links lead there."""
    inside: dict[str, bool] = {}
    for path in paths:
        above = os.path.dirname(path)
        if above not in inside:
            place = readable(os.path.realpath(above))
            inside[above] = any(is_below(place, folder) for folder in folders)
        if not inside[above]:
            yield path


def walk(filesystem: fsspec.AbstractFileSystem, path: str, after: str | None = None) -> Iterator[str]:
    """Yield the files below a folder, sorted; page by page where the file system allows it.

    On this machine folders whose names begin with a dot are not looked into, nor what a run has written into its
    output.

    Parameters
    ----------
    filesystem : AbstractFileSystem
    path : str
        In the file system.
    after : str, optional
        The last file that is known already, where `is_bucket` says that a list may begin behind one.
    """
    if names := _names_of(filesystem):
        return names(filesystem, path.rstrip("/"), after)
    assert after is None
    if is_local(filesystem):
        return _below(path.rstrip("/"), (), set())
    return iter(sorted(patiently(filesystem.find, path)))


def is_bucket(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Say whether a file system has buckets, in which files can be listed from one on, without what is before it."""
    return _names_of(filesystem) is not None


def _names_of(filesystem: fsspec.AbstractFileSystem) -> Callable[..., Iterator[str]] | None:
    """Return what lists the names in a bucket of a file system; None where it has no buckets that it knows."""
    kinds = (filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol
    return next((_BUCKETS[kind] for kind in kinds if kind in _BUCKETS), None)


def _below(path: str, above: tuple[Place, ...], seen: set[Place], links: int = 0) -> Iterator[str]:
    """Yield the files below a folder; `above` are the folders it lies in, `seen` all so far, `links` those on the way.

    A link to a folder is followed, unless it leads to one that it lies in. Behind another link it is followed only to
    what was not seen: from folder to folder there may be endless ways.
    """
    found = os.stat(path or "/")
    place = found.st_dev, found.st_ino
    if place in above or (links > 1 and place in seen and os.path.islink(path)):
        return
    seen.add(place)
    with os.scandir(path or "/") as scanned:
        entries = [(entry.name, _is_folder(entry), entry.is_symlink()) for entry in scanned]
    written = WRITTEN if any(name == BEGUN for name, _, _ in entries) else ()
    for name, is_folder, is_link in sorted(entries, key=lambda entry: f"{entry[0]}/" if entry[1] else entry[0]):
        if is_folder and (name.startswith(".") or name in written):
            continue
        if is_folder:
            yield from _below(f"{path}/{name}", (*above, place), seen, links + is_link)
        else:
            yield f"{path}/{name}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is neither folder nor file: reading it says so
        return False


_BUCKETS: dict[str, Callable[..., Iterator[str]]] = {"s3": s3_names, "gs": gcs_names}


def uri_of(filesystem: fsspec.AbstractFileSystem, path: str) -> str:
    """Return where a file is, for `split_uri`: the path itself on this machine, else its URL."""
    return whole_uri(path if is_local(filesystem) else filesystem.unstrip_protocol(path))
