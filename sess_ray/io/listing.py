"""Which files lie below a folder, page by page where the file system allows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import fsspec

from sess_ray.access import patiently
from sess_ray.io.places import is_below, resolved

WRITTEN = ("maps", "errors", "overlays")  # folders of the output of the explain job


def apart_from(output: str | None, paths: Iterable[str], url: str, root: str) -> Iterator[str]:
    """Yield the paths below a root but those that a job writes into its output.

    Where the output is the root itself, only what the job writes is left out.
    """
    folder, place = resolved(url or "."), None if output is None else resolved(output)
    if place is None or not is_below(place, folder):
        return iter(paths)
    inside = place[len(folder) :].strip("/")
    written = tuple(f"{root.rstrip('/')}/{name}/" for name in ([inside] if inside else WRITTEN))
    return (path for path in paths if not path.startswith(written))


def walk(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[str]:
    """Yield the files below a folder, sorted; page by page where the file system allows it."""
    kinds = (filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol
    for kind in kinds:
        if kind in _WALKS:
            return _WALKS[kind](filesystem, path.rstrip("/"))
    return iter(sorted(patiently(filesystem.find, path)))


def _walk_local(_: fsspec.AbstractFileSystem, path: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    found = os.stat(path or "/")
    if (found.st_dev, found.st_ino) in above:  # a link to a folder that it lies in
        return
    above = (*above, (found.st_dev, found.st_ino))
    with os.scandir(path or "/") as scanned:
        entries = [(entry.name, entry.is_dir()) for entry in scanned]
    for name, is_folder in sorted(entries, key=lambda entry: f"{entry[0]}/" if entry[1] else entry[0]):
        if is_folder:
            yield from _walk_local(_, f"{path}/{name}", above)
        else:
            yield f"{path}/{name}"


def _walk_s3(filesystem: Any, path: str) -> Iterator[str]:
    bucket, _, prefix = path.partition("/")
    asked = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", **filesystem.req_kw}
    while True:
        page = patiently(filesystem.call_s3, "list_objects_v2", **asked)
        yield from (f"{bucket}/{entry['Key']}" for entry in page.get("Contents", ()))
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _walk_gcs(filesystem: Any, path: str) -> Iterator[str]:
    bucket, _, prefix = path.partition("/")
    token = None
    while True:
        asked = {"prefix": f"{prefix}/" if prefix else "", "maxResults": 1000, "pageToken": token}
        page = patiently(filesystem.call, "GET", "b/{}/o", bucket, json_out=True, **asked)
        yield from (f"{bucket}/{entry['name']}" for entry in page.get("items", ()))
        token = page.get("nextPageToken")
        if not token:
            return


_WALKS: dict[str, Callable[..., Iterator[str]]] = {"file": _walk_local, "s3": _walk_s3, "gs": _walk_gcs}


def uri_of(filesystem: fsspec.AbstractFileSystem, path: str) -> str:
    """Return where a file is: the path itself on this machine, else its URL."""
    local = isinstance(filesystem, fsspec.implementations.local.LocalFileSystem)
    return path if local else filesystem.unstrip_protocol(path)
