"""Spans: the rows of a large manifest, cut by place alone, so that nobody has to hold its ids.

A span is so many rows that follow one another; it has a number, and files of an output say in their names which rows of
which span they hold. A list of the files tells which spans are finished, and none of them has to be opened.

Rows that follow one another with one id and one place are one image, of the span in which the first of them lies. An id
that comes again in the same span is read as in a small manifest; one that comes again in another span is another image.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

import fsspec
import pyarrow.parquet as pq

from sess_ray.access import one_line, open_filesystem, patiently, public
from sess_ray.errors import SessError
from sess_ray.io.columns import Columns, Table, listed_folders
from sess_ray.io.items import Item, joined
from sess_ray.io.lines import has_extension
from sess_ray.io.listing import uri_of
from sess_ray.io.manifests import Parquet, listed_from
from sess_ray.io.pieces import Whole
from sess_ray.opening import is_chain, is_local

LARGE = 50_000  # rows; of fewer the ids are held, and compared one by one
SPANS = 1024  # of a manifest, about
LEAST_ROWS, MOST_ROWS = 512, 16_384  # of a span
FOOTER = 8  # bytes at the end of a Parquet file: the length of its metadata, and what it is

Image = tuple[dict[str, Any], list[int]]  # as `ITEMS` has it, and its rows in the manifest


@dataclass(frozen=True)
class Spans:
    """A manifest that is cut into spans.

    Attributes
    ----------
    url : str
        The Parquet manifest, from any process.
    rows : int
        How many it has.
    size : int
        Rows of a span; the last may have fewer.
    sha256 : str
        The hash of the manifest's metadata, which say where its columns lie and what they begin and end with.
    column, label : str or None
        Those of the images and of the labels, where they are not found by themselves.
    """

    url: str
    rows: int
    size: int
    sha256: str
    column: str | None = None
    label: str | None = None

    @property
    def count(self) -> int:
        """How many they are."""
        return -(-self.rows // self.size)

    def bounds(self, span: int) -> tuple[int, int]:
        """Return the first row of a span, and the row behind its last."""
        return span * self.size, min(self.rows, (span + 1) * self.size)

    def told(self) -> dict[str, Any]:
        """Return what an output says of them, as all methods until `images` by `sess_ray.io.cuts.Cut`."""
        return {"rows": self.rows, "size": self.size, "sha256": self.sha256}

    def has(self, span: int) -> bool:
        return span < self.count

    def whole(self, span: int) -> Whole:
        return Whole().plus(range(*self.bounds(span)))

    def numbers(self, span: int, _: Iterable[str], /) -> dict[str, list[int]]:
        return {image["image_id"]: rows for image, rows in self.images(span)}

    def images(self, span: int) -> list[Image]:
        """Read the images of a span; each with its rows in the span, those that lie behind it left out.

        The first image answers also for rows at the span's beginning that are of the last image of the span before.
        """
        begin, end = self.bounds(span)
        leading: list[int] = []
        numbers: list[int] = []
        rows: list[dict[str, Any]] = []
        last, unread, seen = None, None, begin
        try:
            for number, item in self._readable(begin):
                goes_on = last == (item.image_id, item.uri)
                last = item.image_id, item.uri
                if begin <= number < end and not rows and goes_on:
                    leading.append(number)
                elif begin <= number and (number < end or (rows and goes_on)):
                    rows.append(vars(item))
                    numbers.append(number)
                elif number >= end:
                    break
                seen = number + 1
        except SessError:
            raise
        except Exception as error:  # a damaged page, or one that is gone: it costs these rows, and no others
            unread = error if seen < end else None
        found = [(row, [number for number in own if number < end]) for row, own in joined(rows, numbers, _other)]
        if found:
            found[0][1][:0] = leading
        if unread:
            rest = list(range(max(begin, seen), end))
            found.append((self._unread(rest, unread), rest))
        return found

    def _readable(self, begin: int) -> Iterator[tuple[int, Item]]:
        """Yield the images from the row before a span on, and from its own first where that one cannot be read."""
        items = self._from(max(0, begin - 1))
        try:
            yield next(items)
        except SessError:
            raise
        except Exception:
            items = self._from(begin)
        yield from items

    def _from(self, first: int) -> Iterator[tuple[int, Item]]:
        filesystem, path = open_filesystem(self.url)
        return listed_from(filesystem, path, first, self.column, self.label)

    def _unread(self, rows: list[int], why: Exception) -> dict[str, Any]:
        """Return what stands for rows that cannot be read: one image, with an error."""
        place = f"{posixpath.basename(public(self.url))}#{rows[0]}"
        told = f"rows {rows[0] + 1} to {rows[-1] + 1} of the manifest cannot be read: {one_line(why)}"
        return vars(Item(place, place, error=told))


def _other(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Return what stands for a row that has the id of another image: an error of its own."""
    told = f"row {number + 1} has the id of another image, {row['image_id']!r}: give each its own"
    return {**row, "image_id": f"{row['image_id']}#{number}", "error": told}


@dataclass(frozen=True)
class Known:
    """What a manifest's schema and metadata say of all its rows.

    Attributes
    ----------
    spans : Spans
    columns : Columns
    names : tuple of tuples of str
        As `sess_ray.io.inputs.Inputs` has them.
    folders : tuple of str
        Those that images lie in, as `sess_ray.io.items.Item` has them.
    """

    spans: Spans
    columns: Columns
    names: tuple[tuple[str, ...], ...]
    folders: tuple[str, ...] = ()


def cut(url: str, column: str | None = None, label: str | None = None) -> Known | None:
    """Cut a large Parquet manifest into spans; None for whatever else an input is, and for what cannot be opened.

    Parameters
    ----------
    url : str
    column, label : str, optional
        Those of the images and of the labels, where they are not found by themselves.

    Raises
    ------
    SessError
        If it has no column that says where images are.
    """
    if is_chain(url) or not has_extension(url, ".parquet"):
        return None
    filesystem, path = open_filesystem(url)
    try:
        with patiently(filesystem.open, path, "rb") as handle:
            file, sha256 = pq.ParquetFile(handle), _footer_sha256(handle)
    except Exception:  # no file of this name: a glob, a folder; or one that `read_inputs` refuses in its own words
        return None
    rows = file.metadata.num_rows
    if rows < LARGE:
        return None
    place = path if is_local(filesystem) else url  # workers have another working folder
    return _known(filesystem, path, file, Spans(place, rows, size_of(rows), sha256, column, label))


def size_of(rows: int) -> int:
    """Return how many rows a span of a manifest has.

    >>> size_of(100_000), size_of(10_000_000), size_of(100_000_000)
    (512, 9766, 16384)
    """
    return min(MOST_ROWS, max(LEAST_ROWS, -(-rows // SPANS)))


def _known(filesystem: fsspec.AbstractFileSystem, path: str, file: pq.ParquetFile, spans: Spans) -> Known | None:
    table = Table(uri_of(filesystem, path), None, spans.column, spans.label)
    Parquet(filesystem, path, table).look(file.schema_arrow)
    columns = table.columns
    assert columns is not None
    if columns.id is None and table.packed is not None:
        return None  # ids are paths beside the bytes, and many of them may be alike
    if columns.targets is not None and _is_null(file.metadata, columns.targets):
        columns = replace(columns, targets=None)
    named = table.names.get(columns.label or "")
    return Known(spans, columns, (named,) if named else (), listed_folders(file.schema_arrow) or ())


def _is_null(metadata: pq.FileMetaData, column: str) -> bool:
    """Say whether a column, plain or a list, is known to hold nothing but nulls."""
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for chunk in map(chunks.column, range(chunks.num_columns)):
            if chunk.path_in_schema.split(".")[0] == column:
                told = chunk.statistics
                if told is None or not told.has_null_count or told.null_count < chunk.num_values:
                    return False
    return True


def _footer_sha256(handle: IO[bytes]) -> str:
    handle.seek(-FOOTER, 2)
    length = int.from_bytes(handle.read(4), "little")
    handle.seek(-FOOTER - length, 2)
    return hashlib.sha256(handle.read()).hexdigest()
