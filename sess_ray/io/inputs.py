"""Where images come from: folders, globs, manifests, Parquet with image bytes and tar shards, on any file system.

The result is an Arrow table, one row an image (or a tar shard, whose images show when it is read): a million of them
take some hundred megabytes in the driver. The pixels are read where they are used, by `sess_ray.io.reading`.
"""

from __future__ import annotations

import logging
import posixpath
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, takewhile
from typing import Any

import fsspec
import pyarrow as pa

from sess_ray.access import one_line, open_filesystem, public, shown
from sess_ray.errors import SessError
from sess_ray.io import inventories, left_out
from sess_ray.io.inventories import inventory_at
from sess_ray.io.items import CHUNK, HERE, IMAGE_EXTENSIONS, ITEMS, SHARD, Item, distinct
from sess_ray.io.listing import apart_from, is_bucket, uri_of
from sess_ray.io.manifests import MANIFEST_EXTENSIONS, Learned, is_manifest, listed_in
from sess_ray.io.places import expanded
from sess_ray.io.searching import exists, is_folder, is_http, paths_of, visible
from sess_ray.opening import is_chain, readable
from sess_ray.signing import base_name, file_of, is_web, named_apart

MANY = 1_000_000  # images, of which a line says how they need not be held
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
Found = tuple[str, Iterable[str]]  # what ids are below, and the paths of files

logger = logging.getLogger("sess_ray")


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


def find_images(url: str, **options: Any) -> list[Item]:
    """List images as `read_inputs` does, as Python objects."""
    return [Item(**row) for row in read_inputs(url, **options).images.to_pylist()]


def list_images(url: str, limit: int | None = None, output: str | None = None) -> pa.Table:
    """List images as `read_inputs` does."""
    return read_inputs(url, limit, output).images


def read_inputs(
    url: str,
    limit: int | None = None,
    output: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Inputs:
    """List the images of an input, as `Listing` does, and hold them.

    Parameters
    ----------
    url, limit, output, image_column, label_column
        As `Listing` has them.
    meanwhile : callable, optional
        Called when so many are listed that the others may take seconds.

    Returns
    -------
    Inputs

    Raises
    ------
    SessError
        If there is no such place, it holds no image, or it cannot be read.
    """
    listing = Listing(url, limit, output, image_column, label_column)
    chunks = [ITEMS.empty_table()]
    for table in _advised(tables_of(iter(listing)), url):
        chunks.append(table)
        if meanwhile and table.num_rows == CHUNK:
            meanwhile()
    items = distinct(pa.concat_tables(chunks), url).slice(0, limit)
    return Inputs(items, tuple(listing.learned.names), listing.learned.unlabelled)


def tables_of(items: Iterator[Item]) -> Iterator[pa.Table]:
    """Yield images as tables, as `ITEMS` has them; few are Python objects at the same time."""
    while some := list(islice(items, CHUNK)):
        yield pa.Table.from_pylist([_readable(vars(item)) for item in some], ITEMS)


def _advised(tables: Iterator[pa.Table], url: str) -> Iterator[pa.Table]:
    """Say in a line, while tables come, that there is a way on which nobody holds them."""
    rows = 0
    for table in tables:
        before, rows = rows, rows + table.num_rows
        if before <= MANY < rows:
            logger.warning(
                "more than %s images, whose names are held in memory:"
                " `sess-ray list --input %s --output manifest.parquet` makes a manifest of which nobody holds them",
                f"{MANY:,}",
                shlex.quote(public(url)),
            )
        yield table


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


@dataclass
class Listing:
    """The images of a folder (recursively), a glob, a manifest, an inventory, a tar shard or one file, one by one.

    Iterating raises `SessError` if there is no such place, it holds no image, or it cannot be read.

    Parameters
    ----------
    url : str
        A path or any URL that fsspec opens. A manifest ends in .csv, .tsv, .jsonl or .parquet and has a column ``uri``
        (or ``path``, ``file``; relative to the manifest), or in Parquet one of image bytes (``image``, also in the
        layout of Hugging Face), and optionally ``id``, ``label``, ``targets`` (a list, or separated by semicolons).
        Folders and globs may hold images, tar shards (WebDataset) and Parquet files with image bytes. What is hidden
        in a folder (its name, or that of a folder above it, begins with a dot) is left out. The manifest.json of an
        inventory is read as the bucket would be listed.
    limit : int, optional
        The first ones only. Of a folder no more are listed; a manifest is read to its end, since an image may have
        several rows.
    output : str, optional
        Where a job writes: what lies there is left out of folders and globs, or the job would explain its own pictures.
    image_column : str, optional
        The column of a manifest that holds images, or says where they are, where it is not found by itself.
    label_column : str, optional
        The column of a manifest that says what an image shows, where it has another name than ``label``.
    after : str, optional
        Where the last file is that is known already, of an input that is `goes_on`.

    Attributes
    ----------
    learned : Learned
        What tables have said of their labels so far.
    others : Counter
        The files that were left out so far, by their extensions.
    """

    url: str
    limit: int | None = None
    output: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    after: str | None = None
    learned: Learned = field(default_factory=Learned)
    others: Counter[str] = field(default_factory=Counter)
    _tables_read: int = 0

    @property
    def goes_on(self) -> bool:
        """Whether a list may begin behind a file: that of a folder in a bucket."""
        filesystem, path = open_filesystem(self.url)
        return is_bucket(filesystem) and expanded(self.url) == [self.url] and is_folder(filesystem, path)

    def __iter__(self) -> Iterator[Item]:
        empty = self.after is None
        try:
            for item in self._items():
                empty = False
                yield item
        except SessError:
            raise
        except PermissionError as error:
            raise SessError(f"no permission to read {public(self.url)}: {one_line(error)}") from shown(error)
        except Exception as error:
            raise SessError(f"cannot read {public(self.url)}: {one_line(error)}") from shown(error)
        if empty and is_manifest(self.url) and not any(character in self.url for character in "*?[{"):
            raise SessError(f"no images in {public(self.url)}: it has no rows")
        if empty:
            raise SessError(f"no images in {public(self.url)} (looked for {', '.join(sorted(IMAGE_EXTENSIONS))})")
        for flag, column in (("--image-column", self.image_column), ("--label-column", self.label_column)):
            if column is not None and not self._tables_read:
                raise SessError(f"{flag} {column}: {public(self.url)} has no table with columns")

    def _tables(self, filesystem: fsspec.AbstractFileSystem, path: str, prefix: str | None) -> Iterator[Item]:
        self._tables_read += 1
        return listed_in(filesystem, path, prefix, self.image_column, self.label_column, self.learned)

    def _items(self) -> Iterator[Item]:
        if is_chain(self.url):
            raise SessError(
                f"{public(self.url)} is a chain of file systems, which workers cannot list: unpack or copy it first"
            )
        filesystem, path = open_filesystem(self.url)
        urls = expanded(self.url)
        # What is called {a,b} itself comes first; of the web it is not asked for, whose servers forbid what is not
        # there.
        there = (urls == [self.url] or not is_http(filesystem)) and exists(filesystem, path)
        inventory = None
        if there and not is_folder(filesystem, path):
            inventory = inventory_at(filesystem, path) if file_of(path).lower().endswith(".json") else None
            if inventory is None:
                yield from _one_file(filesystem, path, self._tables)
                return
            filesystem, root = inventory.filesystem, inventory.bucket
            place = uri_of(filesystem, root)
            found: list[Found] = [(root, visible(apart_from(self.output, inventory.paths(), place, root), root))]
        else:
            every = [self.url] if there else urls
            found = [paths_of(filesystem, one, self.output, self.after) for one in every]
        yield from self._files(filesystem, found)
        if inventory and inventory.gone:
            logger.warning("left out of the inventory: %s", inventories.told(inventory.gone))

    def _files(self, filesystem: fsspec.AbstractFileSystem, found: list[Found]) -> Iterator[Item]:
        levels = zip(*(root.split("/") for root, _ in found), strict=False)
        shared = "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))
        archives: list[str] = []
        paths = left_out.noted(chain.from_iterable(paths for _, paths in found), self.others)
        paths = _apart_from_archives(paths, archives)
        empty = self.after is None
        for item in islice(_many_files(filesystem, paths, shared, self._tables), self.limit):
            empty = False
            yield item
        if empty and archives:
            raise _packed(archives[0])
        if empty and self.others:
            raise SessError(f"no images in {public(self.url)} by their names, but {left_out.told(self.others)}")
        left_out.tell(self.others)


def _apart_from_archives(paths: Iterable[str], archives: list[str]) -> Iterator[str]:
    for path in paths:
        if path.lower().endswith(left_out.ARCHIVES):
            archives.append(path)
        else:
            yield path


def _packed(path: str) -> SessError:
    return SessError(f"{public(path)} is a packed archive: unpack it, and give the folder, or .tar shards")


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
