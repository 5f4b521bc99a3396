"""Which files a path or a URL means: one, those of a folder, or those of a glob."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Iterable, Iterator

import fsspec

from sess_ray.access import patiently, public
from sess_ray.errors import SessError
from sess_ray.io.listing import apart_from, walk
from sess_ray.opening import path_of
from sess_ray.signing import file_of


def paths_of(
    filesystem: fsspec.AbstractFileSystem, url: str, output: str | None, after: str | None
) -> tuple[str, Iterable[str]]:
    """Return what ids are below, and the paths of files: those of a folder, of a glob, or one.

    Parameters
    ----------
    filesystem : AbstractFileSystem
    url : str
    output : str or None
        Where a job writes: what lies there is left out.
    after : str or None
        The last file of a folder that is known already, as `sess_ray.io.listing.walk` has it.

    Raises
    ------
    SessError
        If there is no such place.
    """
    path = path_of(filesystem, url)
    if exists(filesystem, path):
        if is_folder(filesystem, path):
            return path, visible(apart_from(output, walk(filesystem, path, after), url, path), path)
        return posixpath.dirname(file_of(path)), [path]
    if _is_pattern(path) and not is_http(filesystem):  # there a question mark is no glob
        parts, fixed = path.split("/"), _glob_root(filesystem, path)
        root, pattern = "/".join(parts[:fixed]), "/".join(parts[fixed:])
        pattern_of_all = "/".join((*map(glob.escape, parts[:fixed]), pattern))
        found = patiently(filesystem.glob, pattern_of_all, detail=True)
        files = sorted(name for name, facts in found.items() if facts["type"] != "directory")
        paths = apart_from(output, files, "/".join(url.split("/")[: fixed - len(parts)]), root)
        return root, paths if "/." in f"/{pattern}" else visible(paths, root)  # what is hidden may be asked for
    raise SessError(f"no such input: {public(url)}")


def visible(paths: Iterable[str], root: str) -> Iterator[str]:
    """Leave out what begins with a dot, or lies in a folder that does."""
    return (path for path in paths if "/." not in f"/{path[len(root) :].lstrip('/')}")


def exists(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    """Say whether something is there."""
    # A web server that is busy is no answer, unless it is asked strictly.
    return patiently(filesystem.exists, path, **({"strict": True} if is_http(filesystem) else {}))


def is_folder(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    """Say whether a path leads to a folder."""
    # A web server lists nothing: what is there is one file.
    return not is_http(filesystem) and patiently(filesystem.isdir, path)


def is_http(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Say whether a file system is that of web servers."""
    return "http" in filesystem.protocol


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _glob_root(filesystem: fsspec.AbstractFileSystem, path: str) -> int:
    """Return how many parts of a glob are folders as they stand, also one that is called in[0]; the last is none."""
    parts = path.split("/")
    patterns = (number for number, part in enumerate(parts) if _is_pattern(part))
    there = (number for number in patterns if not exists(filesystem, "/".join(parts[: number + 1])))
    return next(there, len(parts) - 1)
