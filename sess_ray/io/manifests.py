"""Tables that list images: CSV, JSON Lines and Parquet, also Parquet that holds the images' bytes."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.access import persistent, public
from sess_ray.errors import SessError
from sess_ray.io.items import CHUNK, Item
from sess_ray.io.listing import uri_of
from sess_ray.small import marked

MANIFEST_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

URI_COLUMNS = ("uri", "url", "path", "file", "file_name", "filename", "image")
ID_COLUMNS = ("image_id", "id")
LABEL_COLUMNS = ("label", "class", "class_index")
TARGET_COLUMNS = ("targets", "target")
BYTES_COLUMNS = ("image", "bytes", "image_bytes")

PACKED = "packed path"  # stands for the column of image bytes: the path stored beside them, or None


def is_manifest(path: str) -> bool:
    """Say whether a file lists images, by its name."""
    return path.lower().endswith(MANIFEST_EXTENSIONS)


def listed_in(filesystem: fsspec.AbstractFileSystem, path: str, image_id: str | None = None) -> Iterator[Item]:
    """Yield the images that a table lists; with `image_id` it is Parquet, one of several files, and may list none.

    Parameters
    ----------
    filesystem : AbstractFileSystem
    path : str
        In the file system. Its extension says what it is.
    image_id : str, optional
        What the file is called below the input. Ids begin with it, since paths repeat from file to file.

    Raises
    ------
    SessError
        If it has no column that says where images are.
    """

    def rows() -> Iterator[dict[str, Any]]:
        if not path.lower().endswith(".parquet"):
            yield from _text_rows(filesystem, path)
            return
        with filesystem.open(path, "rb") as handle:
            file = pq.ParquetFile(handle)
            if image_id is None or bytes_column(file.schema_arrow) is not None:
                yield from _parquet_rows(file)  # else it is something else that lies between the images

    yield from _items(persistent(lambda had: islice(rows(), had, None)), uri_of(filesystem, path), image_id)


def _items(rows: Iterable[dict[str, Any]], uri: str, image_id: str | None = None) -> Iterator[Item]:
    columns: list[str] = []
    column: str | None = None
    for number, row in enumerate(rows):
        if not number:
            columns = list(row)
            column = PACKED if PACKED in row else _first(columns, URI_COLUMNS)
            if column is None:
                listed = ", ".join(columns)
                known = ", ".join(URI_COLUMNS[1:])
                raise SessError(f"manifest {public(uri)} needs a column 'uri' (or {known}); it has: {listed}")
        assert column is not None
        yield _item(row, columns, column, number, uri, image_id)


def _item(row: dict[str, Any], columns: list[str], column: str, number: int, uri: str, prefix: str | None) -> Item:
    def value(known: Sequence[str]) -> Any:
        name = _first(columns, known)
        return row.get(name) if name else None

    file = posixpath.basename(uri)
    named = _text(row.get(column))
    if prefix is not None:  # paths repeat from file to file
        named, file = (f"{prefix}/{named}" if named else None), prefix
    return Item(
        image_id=_text(value(ID_COLUMNS)) or (public(named) if named else f"{file}#{number}"),
        uri=f"{uri}#{number}" if column == PACKED else _absolute(str(row.get(column) or ""), posixpath.dirname(uri)),
        label=_text(value(LABEL_COLUMNS)),
        targets=_listed(value(TARGET_COLUMNS)),
    )


def _text_rows(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[dict[str, Any]]:
    """Read a manifest of lines, a line at a time."""
    with filesystem.open(path, "rb") as handle:  # one of a web server need not go back
        encoding = marked(handle.read(4)) or "utf-8"
    # A byte that is no text costs its own row: a path that holds it can be opened all the same.
    reading = partial(io.TextIOWrapper, encoding=encoding, errors="surrogateescape", newline="")
    with filesystem.open(path, "rb") as handle, reading(handle) as lines:
        if path.lower().endswith((".csv", ".tsv")):
            yield from csv.DictReader(lines, delimiter="\t" if path.lower().endswith(".tsv") else ",")
        else:
            yield from (json.loads(line) for line in lines if line.strip())


def _parquet_rows(file: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    """Read a manifest; of a column of image bytes only the paths beside them."""
    schema = file.schema_arrow
    packed = bytes_column(schema)
    known = (*ID_COLUMNS, *LABEL_COLUMNS, *TARGET_COLUMNS)
    columns = [name for name in schema.names if name in known] if packed else schema.names
    if packed and _is_pathed(schema.field(packed).type):
        columns.append(f"{packed}.path")
    if packed and not columns:
        yield from ({PACKED: None} for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(CHUNK, columns=columns):
        for row in batch.to_pylist():
            if packed:
                row[PACKED] = (row.pop(packed, None) or {}).get("path")
            yield row


def bytes_column(schema: pa.Schema) -> str | None:
    """Return the column of image bytes, plain or in Hugging Face's struct of bytes and path."""
    for name in BYTES_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind):
                return name
    return None


def _is_pathed(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    return next((name for name in known if name in columns), None)


def _text(value: object) -> str | None:
    return None if value is None or str(value).strip() == "" else str(value).strip()


def _listed(value: object) -> list[str] | None:
    if value is None:
        return None
    values = value if isinstance(value, list | tuple) else str(value).split(";")
    return [str(entry).strip() for entry in values if str(entry).strip()] or None


def _absolute(named: str, folder: str) -> str:
    return named if "://" in named or named.startswith("/") else posixpath.join(folder, named)
