"""Where images come from: folders, globs, manifests, Parquet with image bytes and tar shards, on any file system.

The result is an Arrow table, one row an image (or a tar shard, whose images show when it is read): a million of them
take some hundred megabytes in the driver. The pixels are read where they are used, by `sess_ray.io.reading`.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sess_ray.access import one_line, open_filesystem, patiently, persistent, public, shown
from sess_ray.errors import SessError
from sess_ray.io.listing import apart_from, uri_of, walk

# fmt: off
IMAGE_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif", ".jp2",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico",
))
# fmt: on
MANIFEST_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
SHARD = ".tar"

URI_COLUMNS = ("uri", "url", "path", "file", "file_name", "filename", "image")
ID_COLUMNS = ("image_id", "id")
LABEL_COLUMNS = ("label", "class", "class_index")
TARGET_COLUMNS = ("targets", "target")
BYTES_COLUMNS = ("image", "bytes", "image_bytes")

ITEMS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("targets", pa.list_(pa.string())),
    ]
)
CHUNK = 16_384  # rows that are Python objects at the same time


@dataclass
class Item:
    """One image to explain.

    Attributes
    ----------
    image_id : str
        Its path below the input, or the manifest's id; unique.
    uri : str
        Where it is read; FILE.parquet#ROW or FILE.tar#MEMBER where it lies in another file.
    label : str or None
        Its class by the manifest or by the folder it lies in.
    targets : list of str or None
        Classes to explain, by the manifest.
    """

    image_id: str
    uri: str
    label: str | None = None
    targets: list[str] | None = None


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
        items = _distinct(listed, url).slice(0, limit)
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
    lower, name, uri = path.lower(), posixpath.basename(path), uri_of(filesystem, path)
    if lower.endswith(".parquet"):
        yield from _parquet(filesystem, path)
    elif lower.endswith(MANIFEST_EXTENSIONS):
        yield from _manifest_items(persistent(lambda had: islice(_text_rows(filesystem, path), had, None)), uri)
    else:
        yield Item(name, uri)


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
            yield from _parquet(filesystem, path, image_id)


# --- manifests ---

PACKED = "packed path"  # stands for the column of image bytes: the path stored beside them, or None


def _parquet(filesystem: fsspec.AbstractFileSystem, path: str, image_id: str | None = None) -> Iterator[Item]:
    """List a Parquet manifest, or the rows with image bytes; with `image_id` it is one of several files."""

    def rows() -> Iterator[dict[str, Any]]:
        with filesystem.open(path, "rb") as handle:
            file = pq.ParquetFile(handle)
            if image_id is None or bytes_column(file.schema_arrow) is not None:
                yield from _parquet_rows(file)  # else it is something else that lies between the images

    yield from _manifest_items(persistent(lambda had: islice(rows(), had, None)), uri_of(filesystem, path), image_id)


def _manifest_items(rows: Iterable[dict[str, Any]], uri: str, image_id: str | None = None) -> Iterator[Item]:
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
        yield _manifest_item(row, columns, column, number, uri, image_id)


def _manifest_item(
    row: dict[str, Any], columns: list[str], column: str, number: int, uri: str, prefix: str | None
) -> Item:
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
    with filesystem.open(path, "rb") as handle, io.TextIOWrapper(handle, "utf-8-sig", newline="") as lines:
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


# --- ids ---

_MEMBER = re.compile(r"(.*?\.(?:parquet|tar))#(.*)", re.DOTALL | re.IGNORECASE)


def split_uri(uri: str) -> tuple[str, str | None]:
    """Return the file of a URI and, of FILE.parquet#ROW and FILE.tar#MEMBER, what of it is meant.

    Examples
    --------
    >>> split_uri("s3://bucket/train-0.tar#n01/cat #1.jpg")
    ('s3://bucket/train-0.tar', 'n01/cat #1.jpg')
    >>> split_uri("cat #1.jpg")
    ('cat #1.jpg', None)
    """
    found = _MEMBER.fullmatch(uri)
    return (found[1], found[2]) if found else (uri, None)


def is_shard(uri: str) -> bool:
    """Say whether a URI is a tar shard as a whole."""
    return uri.lower().endswith(SHARD)


def shard_rows(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say of each URI whether it is a tar shard as a whole."""
    return pc.ends_with(uris, SHARD, ignore_case=True)


def _distinct(items: pa.Table, url: str) -> pa.Table:
    """Make ids unique: rows of one image are its targets; other images of a manifest's path are numbered."""
    counts = items["image_id"].value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if not len(twice):
        return items
    repeated = pc.is_in(items["image_id"], twice)
    numbers = pc.indices_nonzero(repeated).to_pylist()
    merged: dict[str, dict[str, Any]] = {}
    where: dict[str, int] = {}
    for number, row in zip(numbers, items.filter(repeated).to_pylist(), strict=True):
        name = row["image_id"]
        before = merged.get(name)
        if before is not None and before["uri"] == row["uri"]:  # one row a target
            before["targets"] = list(dict.fromkeys([*(before["targets"] or []), *(row["targets"] or [])])) or None
            continue
        if before is not None:
            _, member = split_uri(row["uri"])
            if member is None:
                raise SessError(f"{public(url)} has id {name!r} for two images")
            name = f"{name}#{member}"
        merged[name], where[name] = {**row, "image_id": name}, number
    single = items.append_column("number", pa.array(range(items.num_rows), pa.int64())).filter(pc.invert(repeated))
    several = pa.Table.from_pylist(list(merged.values()), ITEMS)
    several = several.append_column("number", pa.array(list(where.values()), pa.int64()))
    return pa.concat_tables([single, several]).sort_by("number").drop_columns(["number"])
