"""Tables that list images: CSV, JSON Lines and Parquet, also Parquet that holds the images' bytes."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import chain, islice
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.access import one_line, persistent, public
from sess_ray.errors import SessError
from sess_ray.io.columns import (
    FOLDER,
    LABEL_COLUMNS,
    Row,
    Table,
    class_names,
    columns_of,
    image_column,
    is_pathed,
    listed_folders,
    no_images,
    no_labels,
    places_in,
    usual_column,
)
from sess_ray.io.items import CHUNK, Item
from sess_ray.io.lines import Lines, columns_here, has_extension
from sess_ray.io.listing import uri_of
from sess_ray.signing import base_name, file_of, named_apart

MANIFEST_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


@dataclass
class Learned:
    """What tables say of their labels.

    Attributes
    ----------
    names : dict
        Its keys are the names of the classes that the labels are of.
    unlabelled : tuple of str
        The columns of a table that has none of labels.
    """

    names: dict[tuple[str, ...], None] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()

    def add(self, source: Parquet | Lines) -> None:
        """Learn from the table of a source, of which a row has been read, or all."""
        columns, seen = source.table.columns, tuple(source.seen)
        named = source.table.names.get((columns and columns.label) or "")
        self.names.update({named: None} if named else {})
        known = [name for name in seen if name.strip().lower() in LABEL_COLUMNS]
        if not (source.table.label or (columns.label if columns else known)):
            self.unlabelled = self.unlabelled or seen


def is_manifest(path: str) -> bool:
    """Say whether a file lists images, by its name."""
    return has_extension(path, *MANIFEST_EXTENSIONS)


def listed_in(
    filesystem: fsspec.AbstractFileSystem,
    path: str,
    prefix: str | None = None,
    column: str | None = None,
    label: str | None = None,
    learned: Learned | None = None,
) -> Iterator[Item]:
    """Yield the images that a table lists; with a `prefix` it is Parquet, one of several files, and may list none.

    Parameters
    ----------
    filesystem : AbstractFileSystem
    path : str
        In the file system. Its extension says what it is.
    prefix : str, optional
        What the file is called below the input. Ids begin with it, since paths repeat from file to file.
    column : str, optional
        That of the images, where it is not found by itself.
    label : str, optional
        That of the labels, where it is not found by itself.
    learned : Learned, optional
        Learns what the table says of its labels.

    Raises
    ------
    SessError
        If it has no column that says where images are, or cannot be read.
    """
    read: type[Parquet | Lines] = Parquet if has_extension(path, ".parquet") else Lines
    source = read(filesystem, path, Table(uri_of(filesystem, path), prefix, column, label))
    number = 0
    try:
        for number, row in enumerate(persistent(lambda had: islice(source.rows(), had, None)), 1):
            yield _item(row, source.table, number - 1)
            if number == 1 and learned is not None and source.table.columns:
                learned.add(source)
    except SessError:
        raise
    except Exception as error:
        if prefix is None:
            raise
        yield Item(f"{prefix}#{number}", f"{source.table.uri}#{number}", error=f"the rest of it: {one_line(error)}")
    if number:
        source.check()
        if learned is not None:
            learned.add(source)


def listed_from(
    filesystem: fsspec.AbstractFileSystem, path: str, first: int, column: str | None = None, label: str | None = None
) -> Iterator[tuple[int, Item]]:
    """Yield the images that a Parquet manifest lists from a row on, each with the number of its row, from 0.

    Parameters
    ----------
    filesystem, path, column, label
        As for `listed_in`.
    first : int
    """
    source = Parquet(filesystem, path, Table(uri_of(filesystem, path), None, column, label))
    rows = persistent(lambda had: source.rows(first + had))
    return ((number, _item(row, source.table, number)) for number, row in enumerate(rows, first))


# --- rows of Parquet ---

PACKED = "packed path"  # stands for the column of image bytes: the path stored beside them, or None


@dataclass
class Parquet:
    """Parquet; of a column of image bytes only the paths beside them are read."""

    filesystem: fsspec.AbstractFileSystem
    path: str
    table: Table
    seen: Sequence[str] = ()  # columns, in their order

    def rows(self, first: int = 0) -> Iterator[Row]:
        with self.filesystem.open(self.path, "rb") as handle:
            file = pq.ParquetFile(handle)
            self.seen = file.schema_arrow.names
            if self.look(file.schema_arrow):
                yield from self._read(file, first)

    def look(self, schema: pa.Schema) -> bool:
        """Find the columns; say whether there are images."""
        table = self.table
        try:
            table.packed = image_column(schema, table.wanted)
            named, places = columns_of(schema.names), columns_of(places_in(schema)).uri
            if table.packed is None and table.prefix is not None and table.wanted is None:
                return False
            if table.packed is None and places is None and table.wanted is None:
                raise no_images(schema)
            if table.label is not None and table.label not in schema.names:
                raise no_labels(table.label, schema.names)
        except SessError as error:
            raise SessError(f"{public(table.uri)} {error}") from None
        table.names = class_names(schema)
        label = table.label or named.label or (next(iter(table.names)) if len(table.names) == 1 else None)
        folder = None if listed_folders(schema) is None else FOLDER
        table.columns = replace(
            named, uri=PACKED if table.packed else table.wanted or places, label=label, folder=folder
        )
        table.member = (
            f"{table.wanted}/" if table.wanted and table.packed and table.wanted != usual_column(schema) else ""
        )
        return True

    def check(self) -> None:
        """Find nothing wrong: the columns are known before the rows."""

    def _read(self, file: pq.ParquetFile, first: int) -> Iterator[Row]:
        table, packed = self.table, self.table.packed
        assert table.columns is not None
        known = table.columns
        names = [known.id, known.label, known.targets, known.folder, None if packed else known.uri]
        columns = list(dict.fromkeys(name for name in names if name is not None and name != packed))
        if packed and is_pathed(file.schema_arrow.field(packed).type):
            columns.append(f"{packed}.path")
            if _is_empty(file, f"{packed}.bytes"):
                table.packed = None  # the paths alone say where the images are
        if not columns:
            yield from ({PACKED: None} for _ in range(first, file.metadata.num_rows))
            return
        groups, skipped = _from_row(file.metadata, first)
        each = (file.iter_batches(CHUNK, row_groups=[group], columns=columns) for group in groups)  # one may be damaged
        for batch in chain.from_iterable(each):
            skip = min(skipped, batch.num_rows)
            skipped -= skip
            for row in batch.slice(skip).to_pylist():
                if packed:
                    row[PACKED] = (row.pop(packed, None) or {}).get("path")
                yield row


def _from_row(metadata: pq.FileMetaData, first: int) -> tuple[list[int], int]:
    """Return the row groups from a row on, and how many rows of theirs are before it."""
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if first < rows:
            return list(range(group, metadata.num_row_groups)), first
        first -= rows
    return [], 0


def _is_empty(file: pq.ParquetFile, column: str) -> bool:
    """Say whether a column is known to hold nothing but nulls, or is not there."""
    for group in range(file.metadata.num_row_groups):
        chunks = file.metadata.row_group(group)
        for found in map(chunks.column, range(chunks.num_columns)):
            told = found.statistics
            full = told is None or not told.has_null_count or told.null_count < found.num_values
            if found.path_in_schema == column and full:
                return False
    return True


# --- an image of a row ---


def _item(row: Row, table: Table, number: int) -> Item:
    file = base_name(table.uri) if table.prefix is None else table.prefix
    own = f"{file}#{number}"
    where = f"{table.uri}#{table.member}{number}"
    wrong = f"row {number + 1} of {file}"
    if isinstance(row, str):
        return Item(own, where, error=f"{wrong}: {row}")
    columns = table.columns or columns_here(tuple(row), table.uri, table.wanted, table.label)
    place = row.get(columns.uri) if columns.uri else None
    named = None if isinstance(place, list | dict | bool) else _text(place)
    named = f"{table.prefix}/{named}" if named and table.prefix is not None else named
    item = Item(
        image_id=(_text(row.get(columns.id)) if columns.id else None) or (public(named_apart(named)) if named else own),
        uri=where,
        labels=_classes(row.get(columns.label), table.names.get(columns.label, ())) if columns.label else None,
        targets=_targets(row.get(columns.targets)) if columns.targets else None,
        folder=_text(row.get(columns.folder)) if columns.folder else None,
    )
    if table.packed is None:
        if named is None:
            item.error = f"{wrong} names no image" if _text(place) is None else f"{wrong}: {columns.uri} is no path"
        else:
            item.uri = absolute(str(_text(place)), posixpath.dirname(file_of(table.uri)))
    return item


def absolute(named: str, folder: str) -> str:
    """Return where something is that a file in a folder names: relative to the folder, or its place."""
    return named if "://" in named or named.startswith("/") else posixpath.join(folder, named)


def _classes(value: Any, names: Sequence[str]) -> list[str] | None:
    """Return the labels that a cell holds; of indices of named classes, the names."""
    values = value if isinstance(value, list) else [value]
    texts = [_class_name(_text(one), names) if names else _text(one) for one in values]
    return [text for text in texts if text is not None] or None


def _class_name(text: str | None, names: Sequence[str]) -> str | None:
    if text is None or text == "-1" or not text.isdecimal():  # -1 is what datasets write of images without a label
        return None if text == "-1" else text
    return names[int(text)] if int(text) < len(names) else f"label {text} of {len(names)} classes"


def _targets(value: Any) -> list[str] | None:
    values = value if isinstance(value, list) else (_text(value) or "").split(";")
    return [text for text in map(_text, values) if text is not None] or None


def _text(value: Any) -> str | None:
    """Return a cell as text: 281.0 is 281; None where it is empty or NaN."""
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    return str(value).strip() or None
