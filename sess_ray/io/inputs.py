"""Where images come from: folders, globs, manifests, Parquet with image bytes and tar shards, on any file system.

The result is an Arrow table, one row an image (or a tar shard, whose images show when it is read): a million of them
take some hundred megabytes in the driver. The pixels are read where they are used, by `sess_ray.io.reading`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from itertools import islice

import fsspec
import pyarrow as pa

from sess_ray.access import one_line, open_filesystem, patiently, public, shown
from sess_ray.errors import SessError
from sess_ray.io.items import CHUNK, IMAGE_EXTENSIONS, ITEMS, SHARD, Item, distinct
from sess_ray.io.listing import apart_from, uri_of, walk
from sess_ray.io.manifests import is_manifest, listed_in


def find_images(url: str) -> list[Item]:
    """List images as `list_images` does, as Python objects."""
    return [Item(**row) for row in list_images(url).to_pylist()]


def list_images(url: str, limit: int | None = None, output: str | None = None) -> pa.Table:
    """List the images of a folder (recursively), a glob, a manifest, a tar shard or one file.

    Parameters
    ----------
    url : str
        A path or any URL that fsspec opens. A manifest ends in .csv, .tsv, .jsonl or .parquet and has a column ``uri``
        (or ``path``, ``file``; relative to the manifest), or in Parquet one of image bytes (``image``, also in the
        layout of Hugging Face), and optionally ``id``, ``label``, ``targets`` (a list, or separated by semicolons).
        Folders and globs may hold images, tar shards (WebDataset) and Parquet files with image bytes.
    limit : int, optional
        The first ones only. Of a folder no more are listed; a manifest is read to its end, since an image may have
        several rows.
    output : str, optional
        Where a job writes: what lies there is left out of folders and globs, or the job would explain its own pictures.

    Returns
    -------
    pa.Table
        The images, as `ITEMS` has them; sorted by path, or in the manifest's order. A tar shard is one row.

    Raises
    ------
    SessError
        If there is no such place, it holds no image, or it cannot be read.
    """
    try:
        listed = pa.concat_tables([ITEMS.empty_table(), *_chunks(_items(url, limit, output))])
        items = distinct(listed, url).slice(0, limit)
    except SessError:
        raise
    except PermissionError as error:
        raise SessError(f"no permission to read {public(url)}: {one_line(error)}") from shown(error)
    except Exception as error:
        raise SessError(f"cannot read {public(url)}: {one_line(error)}") from shown(error)
    if not items.num_rows:
        raise SessError(f"no images in {public(url)} (looked for {', '.join(sorted(IMAGE_EXTENSIONS))})")
    return items


def _chunks(items: Iterator[Item]) -> Iterator[pa.Table]:
    while some := list(islice(items, CHUNK)):
        yield pa.Table.from_pylist([vars(item) for item in some], ITEMS)


def _items(url: str, limit: int | None, output: str | None = None) -> Iterator[Item]:
    filesystem, path = open_filesystem(url)
    # A web server lists nothing: what is there is one file. One that is busy is no answer, unless it is asked strictly.
    web = _is_http(filesystem)
    exists = patiently(filesystem.exists, path, **({"strict": True} if web else {}))
    folder = exists and not web and patiently(filesystem.isdir, path)
    if exists and not folder:
        yield from _one_file(filesystem, path)
    elif folder:
        yield from islice(_many_files(filesystem, apart_from(output, walk(filesystem, path), url, path), path), limit)
    elif any(character in path for character in "*?["):
        root = _glob_root(path)
        paths = apart_from(output, sorted(patiently(filesystem.glob, path)), _glob_root(url), root)
        yield from islice(_many_files(filesystem, paths, root), limit)
    else:
        raise SessError(f"no such input: {public(url)}")


def _is_http(filesystem: fsspec.AbstractFileSystem) -> bool:
    return "http" in filesystem.protocol


def _glob_root(path: str) -> str:
    parts = path.split("/")
    fixed = next(i for i, part in enumerate(parts) if any(character in part for character in "*?["))
    return "/".join(parts[:fixed])


def _one_file(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[Item]:
    if is_manifest(path):
        yield from listed_in(filesystem, path)
    else:
        yield Item(posixpath.basename(path), uri_of(filesystem, path))


def _many_files(filesystem: fsspec.AbstractFileSystem, paths: Iterable[str], root: str) -> Iterator[Item]:
    root = root.rstrip("/")
    for path in paths:
        image_id = path[len(root) + 1 :] if root else path
        name = posixpath.basename(path)
        extension = posixpath.splitext(name)[1].lower()
        if name.startswith("."):
            continue
        if extension in IMAGE_EXTENSIONS:
            yield Item(image_id, uri_of(filesystem, path), label=posixpath.basename(posixpath.dirname(path)) or None)
        elif extension == SHARD:
            yield Item(image_id, uri_of(filesystem, path))
        elif extension == ".parquet":
            yield from listed_in(filesystem, path, image_id)
