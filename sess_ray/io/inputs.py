"""Where images come from: folders, globs and manifests, on any file system that fsspec knows.

The result is a table of work, one row an image, small enough for the driver: the pixels are read where they are used.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.errors import SessError

# fmt: off
IMAGE_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif", ".jp2",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico",
))
# fmt: on
MANIFEST_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

URI_COLUMNS = ("uri", "url", "path", "file", "file_name", "filename", "image")
ID_COLUMNS = ("image_id", "id")
LABEL_COLUMNS = ("label", "class", "class_index")
TARGET_COLUMNS = ("targets", "target")
BYTES_COLUMNS = ("image", "bytes", "image_bytes")


@dataclass
class Item:
    """One image to explain.

    Attributes
    ----------
    image_id : str
        Its path below the input, or the manifest's id; unique.
    uri : str
        Where it is read.
    row : int
        Row of the Parquet file `uri` that holds its bytes; -1 where `uri` is the image itself.
    label : str or None
        Its class by the manifest or by the folder it lies in.
    targets : list of str or None
        Classes to explain, by the manifest.
    """

    image_id: str
    uri: str
    row: int = -1
    label: str | None = None
    targets: list[str] | None = None


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it; `SessError` where its package is missing."""
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SessError(f"cannot open {url}: {error}") from error
    except ValueError as error:
        raise SessError(f"cannot open {url}: {error}") from error


def find_images(url: str) -> list[Item]:
    """List the images of a folder (recursively), a glob, a manifest or one file.

    Parameters
    ----------
    url : str
        A path or any URL that fsspec opens. A manifest ends in .csv, .tsv, .jsonl or .parquet and has a column ``uri``
        (or ``path``, ``file``; relative to the manifest), or in Parquet one of image bytes (``image``, also in the
        layout of Hugging Face), and optionally ``id``, ``label``, ``targets`` (a list, or separated by semicolons).

    Returns
    -------
    list of Item
        Sorted by path, or in the manifest's order.

    Raises
    ------
    SessError
        If there is no such place, it holds no image, or it can not be read.
    """
    filesystem, path = open_filesystem(url)
    try:
        if path.lower().endswith(MANIFEST_EXTENSIONS) and filesystem.isfile(path):
            items = _read_manifest(filesystem, path)
        elif any(character in path for character in "*?[") and not filesystem.exists(path):
            items = _from_paths(filesystem, filesystem.glob(path), _glob_root(path))
        elif filesystem.isdir(path):
            items = _from_paths(filesystem, filesystem.find(path), path)
        elif filesystem.exists(path):
            items = [Item(posixpath.basename(path), filesystem.unstrip_protocol(path) if _remote(filesystem) else path)]
        else:
            raise SessError(f"no such input: {url}")
    except SessError:
        raise
    except PermissionError as error:
        raise SessError(f"no permission to read {url}: {error}") from error
    except Exception as error:
        raise SessError(f"cannot read {url}: {type(error).__name__}: {error}".split("\n")[0]) from error
    if not items:
        raise SessError(f"no images in {url} (looked for {', '.join(sorted(IMAGE_EXTENSIONS))})")
    return items


def _remote(filesystem: fsspec.AbstractFileSystem) -> bool:
    return not isinstance(filesystem, fsspec.implementations.local.LocalFileSystem)


def _glob_root(path: str) -> str:
    parts = path.split("/")
    fixed = next(i for i, part in enumerate(parts) if any(character in part for character in "*?["))
    return "/".join(parts[:fixed])


def _from_paths(filesystem: fsspec.AbstractFileSystem, paths: Iterable[str], root: str) -> list[Item]:
    items = []
    remote = _remote(filesystem)
    root = root.rstrip("/")
    for path in sorted(paths):
        name = posixpath.basename(path)
        if posixpath.splitext(name)[1].lower() not in IMAGE_EXTENSIONS or name.startswith("."):
            continue
        image_id = path[len(root) + 1 :]
        folder = posixpath.basename(posixpath.dirname(path))
        uri = filesystem.unstrip_protocol(path) if remote else path
        items.append(Item(image_id, uri, label=folder or None))
    return items


PACKED = "packed path"  # stands for the column of image bytes: the path stored beside them, or None


def _read_manifest(filesystem: fsspec.AbstractFileSystem, path: str) -> list[Item]:
    uri = filesystem.unstrip_protocol(path) if _remote(filesystem) else path
    rows = _manifest_rows(filesystem, path)
    columns = list(rows[0]) if rows else []
    place = PACKED if PACKED in columns else _first(columns, URI_COLUMNS)
    if rows and place is None:
        listed = ", ".join(columns)
        raise SessError(f"manifest {uri} needs a column 'uri' (or {', '.join(URI_COLUMNS[1:])}); it has: {listed}")
    items: dict[str, Item] = {}
    for number, row in enumerate(rows):
        assert place is not None
        item = _manifest_item(row, columns, place, number, uri)
        before = items.setdefault(item.image_id, item)
        if before is item:
            continue
        if before.uri == item.uri and before.row == item.row:  # one row a target
            more = [*(before.targets or []), *(item.targets or [])]
            before.targets = list(dict.fromkeys(more)) or None
        elif _first(columns, ID_COLUMNS) is None:
            item.image_id = f"{item.image_id}#{number}"
            items[item.image_id] = item
        else:
            raise SessError(f"manifest {uri} has id {item.image_id!r} for two images")
    return list(items.values())


def _manifest_rows(filesystem: fsspec.AbstractFileSystem, path: str) -> list[dict[str, Any]]:
    lower = path.lower()
    if lower.endswith(".parquet"):
        with filesystem.open(path, "rb") as file:
            return _parquet_rows(pq.ParquetFile(file))
    text = filesystem.cat_file(path).decode("utf-8-sig")
    if lower.endswith((".csv", ".tsv")):
        return list(csv.DictReader(io.StringIO(text), delimiter="\t" if lower.endswith(".tsv") else ","))
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _manifest_item(row: dict[str, Any], columns: list[str], place: str, number: int, uri: str) -> Item:
    def value(known: Sequence[str]) -> Any:
        name = _first(columns, known)
        return row.get(name) if name else None

    packed = place == PACKED
    given = _text(value(ID_COLUMNS)) or _text(row.get(place)) or f"{posixpath.basename(uri)}#{number}"
    return Item(
        image_id=given,
        uri=uri if packed else _absolute(str(row.get(place) or ""), posixpath.dirname(uri)),
        row=number if packed else -1,
        label=_text(value(LABEL_COLUMNS)),
        targets=_listed(value(TARGET_COLUMNS)),
    )


def _parquet_rows(file: pq.ParquetFile) -> list[dict[str, Any]]:
    """Read a manifest; of a column of image bytes only the paths beside them."""
    schema = file.schema_arrow
    packed = _bytes_column(schema)
    if packed is None:
        return file.read().to_pylist()
    kind = schema.field(packed).type
    paths = [f"{packed}.path"] if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 else []
    named = [name for name in schema.names if name in (*ID_COLUMNS, *LABEL_COLUMNS, *TARGET_COLUMNS)]
    count = file.metadata.num_rows
    rows = file.read(columns=[*named, *paths]).to_pylist() if named or paths else [{} for _ in range(count)]
    for row in rows:
        row[PACKED] = (row.pop(packed, None) or {}).get("path")
    return rows


def _bytes_column(schema: pa.Schema) -> str | None:
    """Return the column of image bytes, plain or in Hugging Face's struct of bytes and path."""
    for name in BYTES_COLUMNS:
        if name in schema.names and (
            _is_binary(schema.field(name).type) or pa.types.is_struct(schema.field(name).type)
        ):
            return name
    return None


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    return next((name for name in known if name in columns), None)


def _text(value: object) -> str | None:
    return None if value is None or str(value).strip() == "" else str(value).strip()


def _listed(value: object) -> list[str] | None:
    if value is None:
        return None
    values = value if isinstance(value, list | tuple) else str(value).split(";")
    return [str(entry).strip() for entry in values if str(entry).strip()] or None


def _absolute(place: str, folder: str) -> str:
    return place if "://" in place or place.startswith("/") else posixpath.join(folder, place)


def read_items(uris: Sequence[str], rows: Sequence[int]) -> list[bytes | Exception]:
    """Read the bytes of images, those of one file system or one Parquet file together.

    Parameters
    ----------
    uris, rows : sequences
        Of `Item`.

    Returns
    -------
    list of bytes or Exception
        The exception where an image could not be read.
    """
    results: list[bytes | Exception] = [FileNotFoundError()] * len(uris)
    files: dict[str, list[int]] = {}
    for index, (uri, row) in enumerate(zip(uris, rows, strict=True)):
        files.setdefault(uri if row >= 0 else uri.partition("://")[0] if "://" in uri else "", []).append(index)
    for key, indices in files.items():
        try:
            if rows[indices[0]] >= 0:
                found = _read_packed(key, [rows[index] for index in indices])
            else:
                found = _read_files([uris[index] for index in indices])
        except Exception as error:
            found = [error] * len(indices)
        for index, content in zip(indices, found, strict=True):
            results[index] = content
    return results


def _read_files(uris: list[str]) -> list[bytes | Exception]:
    filesystem, _ = open_filesystem(uris[0])
    paths = [filesystem._strip_protocol(uri) for uri in uris]
    # Whole files as ranges without ends: concurrent where the file system can, and no name is taken for a pattern.
    whole = [None] * len(paths)
    return list(filesystem.cat_ranges(paths, whole, whole, on_error="return"))


def _read_packed(uri: str, rows: list[int]) -> list[bytes | Exception]:
    with fsspec.open(uri, "rb") as handle:
        file = pq.ParquetFile(handle)
        name = _bytes_column(file.schema_arrow)
        wanted = set(rows)
        found: dict[int, bytes | Exception] = {}
        first = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            if any(first <= row < last for row in wanted):
                column = file.read_row_group(group, columns=[name])[name]
                for row in sorted(row for row in wanted if first <= row < last):
                    value = column[row - first].as_py()
                    content = value.get("bytes") if isinstance(value, dict) else value
                    found[row] = content if content is not None else SessError("the row holds no image bytes")
            first = last
    return [found[row] for row in rows]
