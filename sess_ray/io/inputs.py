"""Where images come from: folders, globs, manifests, Parquet with image bytes and tar shards, on any file system.

The result is an Arrow table, one row an image (or a tar shard, whose images show when it is read): a million of them
take some hundred megabytes in the driver. The pixels are read where they are used, by `sess_ray.io.reading`.
"""

from __future__ import annotations

import glob
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, takewhile
from typing import Any

import fsspec
import pyarrow as pa

from sess_ray.access import one_line, open_filesystem, patiently, public, shown
from sess_ray.errors import SessError
from sess_ray.io import left_out
from sess_ray.io.items import CHUNK, HERE, IMAGE_EXTENSIONS, ITEMS, SHARD, Item, distinct
from sess_ray.io.listing import apart_from, uri_of, walk
from sess_ray.io.manifests import MANIFEST_EXTENSIONS, Learned, is_manifest, listed_in
from sess_ray.io.places import expanded
from sess_ray.opening import is_chain, path_of, readable
from sess_ray.signing import base_name, file_of, is_web, named_apart

# What else may hold a table, or a text; given as the whole input it was meant as a manifest.
TABLES = (
    ".json",
    ".txt",
    ".xlsx",
    ".xls",
    ".ods",
    ".gz",
    ".bz2",
    ".zst",
    ".pq",
    ".arrow",
    ".feather",
    ".orc",
    ".xml",
    ".yaml",
)
# What lists the images of a table: of a file system, a path, and what its ids begin with.
Tables = Callable[[fsspec.AbstractFileSystem, str, str | None], Iterator[Item]]


@dataclass(frozen=True)
class Inputs:
    """What an input holds.

    Attributes
    ----------
    images : pa.Table
        As `ITEMS` has them; sorted by path, or in the manifest's order. A tar shard is one row.
    class_names : tuple of tuples of str
        Where tables name the classes that their labels are of: the names, in their order. One for each way to name
        them.
    unlabelled : tuple of str
        The columns of a table that has none of labels, where there is such a table.
    """

    images: pa.Table
    class_names: tuple[tuple[str, ...], ...] = ()
    unlabelled: tuple[str, ...] = ()


def find_images(url: str) -> list[Item]:
    """List images as `list_images` does, as Python objects."""
    return [Item(**row) for row in list_images(url).to_pylist()]


def list_images(url: str, limit: int | None = None, output: str | None = None) -> pa.Table:
    """List images as `read_inputs` does."""
    return read_inputs(url, limit, output).images


def read_inputs(
    url: str,
    limit: int | None = None,
    output: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Inputs:
    """List the images of a folder (recursively), a glob, a manifest, a tar shard or one file.

    Parameters
    ----------
    url : str
        A path or any URL that fsspec opens. A manifest ends in .csv, .tsv, .jsonl or .parquet and has a column ``uri``
        (or ``path``, ``file``; relative to the manifest), or in Parquet one of image bytes (``image``, also in the
        layout of Hugging Face), and optionally ``id``, ``label``, ``targets`` (a list, or separated by semicolons).
        Folders and globs may hold images, tar shards (WebDataset) and Parquet files with image bytes. What is hidden
        in a folder (its name, or that of a folder above it, begins with a dot) is left out.
    limit : int, optional
        The first ones only. Of a folder no more are listed; a manifest is read to its end, since an image may have
        several rows.
    output : str, optional
        Where a job writes: what lies there is left out of folders and globs, or the job would explain its own pictures.
    image_column : str, optional
        The column of a manifest that holds images, or says where they are, where it is not found by itself.
    label_column : str, optional
        The column of a manifest that says what an image shows, where it has another name than ``label``.

    Returns
    -------
    Inputs

    Raises
    ------
    SessError
        If there is no such place, it holds no image, or it cannot be read.
    """
    learned = Learned()
    read: list[str] = []

    def tables(filesystem: fsspec.AbstractFileSystem, path: str, prefix: str | None) -> Iterator[Item]:
        read.append(path)
        return listed_in(filesystem, path, prefix, image_column, label_column, learned)

    try:
        listed = pa.concat_tables([ITEMS.empty_table(), *_chunks(_items(url, limit, output, tables))])
        items = distinct(listed, url).slice(0, limit)
    except SessError:
        raise
    except PermissionError as error:
        raise SessError(f"no permission to read {public(url)}: {one_line(error)}") from shown(error)
    except Exception as error:
        raise SessError(f"cannot read {public(url)}: {one_line(error)}") from shown(error)
    if not items.num_rows and is_manifest(url) and not any(character in url for character in "*?[{"):
        raise SessError(f"no images in {public(url)}: it has no rows")
    if not items.num_rows:
        raise SessError(f"no images in {public(url)} (looked for {', '.join(sorted(IMAGE_EXTENSIONS))})")
    for flag, column in (("--image-column", image_column), ("--label-column", label_column)):
        if column is not None and not read:
            raise SessError(f"{flag} {column}: {public(url)} has no table with columns")
    return Inputs(items, tuple(learned.names), learned.unlabelled)


def _chunks(items: Iterator[Item]) -> Iterator[pa.Table]:
    while some := list(islice(items, CHUNK)):
        yield pa.Table.from_pylist([_readable(vars(item)) for item in some], ITEMS)


def _readable(value: Any) -> Any:
    """Return an item whose texts are UTF-8, whatever a disk has called it."""
    match value:
        case str():
            return readable(value)
        case list():
            return [_readable(entry) for entry in value]
        case dict():
            return {name: _readable(entry) for name, entry in value.items()}
    return value


def _items(url: str, limit: int | None, output: str | None, tables: Tables) -> Iterator[Item]:
    if is_chain(url):
        raise SessError(f"{public(url)} is a chain of file systems, which workers cannot list: unpack or copy it first")
    filesystem, path = open_filesystem(url)
    urls = expanded(url)
    # What is called {a,b} itself comes first; of the web it is not asked for, whose servers forbid what is not there.
    exists = (urls == [url] or not _is_http(filesystem)) and _exists(filesystem, path)
    if exists and not _is_folder(filesystem, path):
        yield from _one_file(filesystem, path, tables)
        return
    found = [_paths(filesystem, one, output) for one in ([url] if exists else urls)]
    levels = zip(*(root.split("/") for root, _ in found), strict=False)
    shared = "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))
    archives: list[str] = []
    others: Counter[str] = Counter()
    paths = left_out.noted(chain.from_iterable(paths for _, paths in found), others)
    paths = _apart_from_archives(paths, archives)
    empty = True
    for item in islice(_many_files(filesystem, paths, shared, tables), limit):
        empty = False
        yield item
    if empty and archives:
        raise _packed(archives[0])
    if empty and others:
        raise SessError(f"no images in {public(url)} by their names, but {left_out.told(others)}")
    left_out.tell(others)


def _apart_from_archives(paths: Iterable[str], archives: list[str]) -> Iterator[str]:
    for path in paths:
        if path.lower().endswith(left_out.ARCHIVES):
            archives.append(path)
        else:
            yield path


def _packed(path: str) -> SessError:
    return SessError(f"{public(path)} is a packed archive: unpack it, and give the folder, or .tar shards")


def _paths(filesystem: fsspec.AbstractFileSystem, url: str, output: str | None) -> tuple[str, Iterable[str]]:
    """Return what ids are below, and the paths of files: those of a folder, of a glob, or one."""
    path = path_of(filesystem, url)
    if _exists(filesystem, path):
        if _is_folder(filesystem, path):
            return path, _visible(apart_from(output, walk(filesystem, path), url, path), path)
        return posixpath.dirname(file_of(path)), [path]
    if _is_pattern(path) and not _is_http(filesystem):  # there a question mark is no glob
        parts, fixed = path.split("/"), _glob_root(filesystem, path)
        root, pattern = "/".join(parts[:fixed]), "/".join(parts[fixed:])
        pattern_of_all = "/".join((*map(glob.escape, parts[:fixed]), pattern))
        found = patiently(filesystem.glob, pattern_of_all, detail=True)
        files = sorted(name for name, facts in found.items() if facts["type"] != "directory")
        paths = apart_from(output, files, "/".join(url.split("/")[: fixed - len(parts)]), root)
        return root, paths if "/." in f"/{pattern}" else _visible(paths, root)  # what is hidden may be asked for
    raise SessError(f"no such input: {public(url)}")


def _visible(paths: Iterable[str], root: str) -> Iterator[str]:
    """Leave out what begins with a dot, or lies in a folder that does."""
    return (path for path in paths if "/." not in f"/{path[len(root) :].lstrip('/')}")


def _exists(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    # A web server that is busy is no answer, unless it is asked strictly.
    return patiently(filesystem.exists, path, **({"strict": True} if _is_http(filesystem) else {}))


def _is_folder(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    # A web server lists nothing: what is there is one file.
    return not _is_http(filesystem) and patiently(filesystem.isdir, path)


def _is_http(filesystem: fsspec.AbstractFileSystem) -> bool:
    return "http" in filesystem.protocol


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _glob_root(filesystem: fsspec.AbstractFileSystem, path: str) -> int:
    """Return how many parts of a glob are folders as they stand, also one that is called in[0]; the last is none."""
    parts = path.split("/")
    patterns = (number for number, part in enumerate(parts) if _is_pattern(part))
    there = (number for number in patterns if not _exists(filesystem, "/".join(parts[: number + 1])))
    return next(there, len(parts) - 1)


def _one_file(filesystem: fsspec.AbstractFileSystem, path: str, tables: Tables) -> Iterator[Item]:
    if is_manifest(path):
        yield from tables(filesystem, path, None)
    elif file_of(path).lower().endswith(left_out.ARCHIVES):
        raise _packed(path)
    elif file_of(path).lower().endswith(TABLES):
        known = ", ".join(MANIFEST_EXTENSIONS)
        raise SessError(f"{public(path)} is no image, and no manifest by its name: those end in {known}")
    else:
        yield Item(base_name(path), uri_of(filesystem, path))


def _many_files(
    filesystem: fsspec.AbstractFileSystem, paths: Iterable[str], root: str, tables: Tables
) -> Iterator[Item]:
    root = root.rstrip("/")
    for path in paths:
        named = named_apart(path) if is_web(path) else path
        image_id = named[len(root) + 1 :] if root else named
        extension = posixpath.splitext(file_of(path))[1].lower()
        if extension in IMAGE_EXTENSIONS:
            folder = posixpath.dirname(image_id) or f"{HERE}{posixpath.basename(root)}"
            yield Item(image_id, uri_of(filesystem, path), folder=folder)
        elif extension == SHARD:
            yield Item(image_id, uri_of(filesystem, path))
        elif extension == ".parquet":
            yield from tables(filesystem, path, image_id)
