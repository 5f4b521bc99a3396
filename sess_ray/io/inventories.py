"""Inventories of buckets, which clouds write once a day: S3 Inventory, and Google's Storage Insights inventory reports.

Both are a manifest in JSON that names files of rows, one for each object (S3: CSV, Parquet or ORC; Google: CSV or
Parquet). They are read where they lie, and say of a bucket what a list of it would, without a request for each thousand
names; in the order of their files, which is no order of names.
"""

from __future__ import annotations

import csv
import gzip
import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import unquote_plus

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.orc as paorc
import pyarrow.parquet as pq

from sess_ray.access import one_line, open_filesystem, patiently, persistent, public
from sess_ray.errors import SessError
from sess_ray.io.items import CHUNK
from sess_ray.io.listing import is_bucket, uri_of

LARGEST = 64 * 2**20  # bytes of a manifest: of a JSON file that is larger nobody asks whether it is one
# What becomes of the rows that are no object of now: the column, which values of it are meant, and what it is called.
GONE = {
    "isdeletemarker": (("true",), "delete marker"),
    "islatest": (("false",), "old version"),
    "timedeleted": (None, "deleted or old version"),  # any
}


@dataclass
class Inventory:
    """What a bucket held when its inventory was made.

    Attributes
    ----------
    filesystem : AbstractFileSystem
        That of the bucket, and of the files in it.
    bucket : str
    files : list of str
        URLs of the files of rows.
    columns : list of str or None
        Those of CSV without a header.
    delimiter : str
        What separates the cells of CSV.
    quoted : bool
        Whether names are encoded as in URLs.
    gone : Counter
        Rows that were read and name no object of now, by what they are called.
    """

    filesystem: fsspec.AbstractFileSystem
    bucket: str
    files: list[str]
    columns: list[str] | None = None
    delimiter: str = ","
    quoted: bool = False
    gone: Counter[str] = field(default_factory=Counter)

    def paths(self) -> Iterator[str]:
        """Yield the paths of objects, in the order of the files.

        Raises
        ------
        SessError
            If a file is not there, or cannot be read to its end: what is left would pass for the whole bucket.
        """
        for url in self.files:
            try:
                yield from persistent(partial(self._behind, url))
            except SessError:
                raise
            except Exception as error:
                raise SessError(f"the inventory's file {public(url)} cannot be read: {one_line(error)}") from error

    def _behind(self, url: str, had: int) -> Iterator[str]:
        return islice(self._paths(url), had, None)

    def _paths(self, url: str) -> Iterator[str]:
        gone: Counter[str] = Counter()
        for table in self._tables(url):
            yield from (f"{self.bucket}/{name}" for name in self._names(table, url, gone))
        self.gone.update(gone)

    def _tables(self, url: str) -> Iterator[pa.Table]:
        filesystem, path = open_filesystem(url)
        read = next((one for ending, one in _READERS.items() if path.lower().endswith(ending)), None)
        if read is None:
            raise SessError(f"the inventory's file {public(url)} is none of {', '.join(_READERS)}")
        with filesystem.open(path, "rb") as handle:
            yield from read(self, handle)

    def _names(self, table: pa.Table, url: str, gone: Counter[str]) -> list[str]:
        """Return the names of the objects that are there now."""
        columns = {_plain(name): table[name] for name in table.column_names}
        names = columns.get("key", columns.get("name"))
        if names is None or "bucket" not in columns:
            raise SessError(f"the inventory's file {public(url)} has no columns of buckets and names")
        wrong = next((one for one in columns["bucket"].unique().to_pylist() if one != self.bucket), self.bucket)
        if wrong != self.bucket:
            raise SessError(f"the inventory's file {public(url)} is of bucket {wrong}, its manifest of {self.bucket}")
        left = pa.chunked_array([pa.repeat(pa.scalar(value=True), table.num_rows)])
        for kind, (values, called) in GONE.items():
            if kind in columns:
                meant = _is_said(columns[kind], values)
                count = pc.sum(pc.and_(left, meant)).as_py() or 0
                gone.update({called: count} if count else {})
                left = pc.and_not(left, meant)
        found: list[str] = names.filter(left).to_pylist()
        return [unquote_plus(name) for name in found] if self.quoted else found


def told(gone: Counter[str]) -> str:
    """Return in words which rows name no object of now.

    >>> told(Counter({"old version": 1200, "delete marker": 1}))
    '1,200 old versions and 1 delete marker'
    """
    return " and ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in gone.most_common())


def _plain(name: str) -> str:
    """Return the name of a column as both layouts have it: IsLatest and is_latest are one."""
    return name.strip().replace("_", "").lower()


def _is_said(column: pa.ChunkedArray, values: Sequence[str] | None) -> pa.ChunkedArray:
    """Say of each cell whether it is one of some words, or without them whether it is not empty."""
    texts = pc.fill_null(pc.cast(column, pa.string()), "")
    return pc.not_equal(texts, "") if values is None else pc.is_in(pc.utf8_lower(texts), pa.array(values))


# --- files of rows ---

# All that is asked of a file; the other columns are left where they are.
ASKED = ("bucket", "key", "name", *GONE)


def _csv(inventory: Inventory, handle: Any) -> Iterator[pa.Table]:
    packed = handle.read(2) == b"\x1f\x8b"
    handle.seek(0)
    with gzip.open(handle) if packed else handle as plain:
        if packed and not plain.peek(1):  # a file without rows
            return
        names = inventory.columns or _header(plain, inventory.delimiter)
        columns = [name for name in names if _plain(name) in ASKED]
        reader = pacsv.open_csv(
            plain,
            pacsv.ReadOptions(column_names=names),
            pacsv.ParseOptions(delimiter=inventory.delimiter, newlines_in_values=True),
            # Text, all of it: a key such as 0012 is no number.
            pacsv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string())),
        )
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _header(lines: Any, delimiter: str) -> list[str]:
    """Read the first line of CSV."""
    return next(csv.reader([lines.readline().decode(errors="replace")], delimiter=delimiter), [])


def _parquet(_: Inventory, handle: Any) -> Iterator[pa.Table]:
    file = pq.ParquetFile(handle)
    columns = [name for name in file.schema_arrow.names if _plain(name) in ASKED]
    for batch in file.iter_batches(CHUNK, columns=columns):
        yield pa.Table.from_batches([batch])


def _orc(_: Inventory, handle: Any) -> Iterator[pa.Table]:
    file = paorc.ORCFile(handle)
    columns = [name for name in file.schema.names if _plain(name) in ASKED]
    for stripe in range(file.nstripes):
        yield pa.Table.from_batches([file.read_stripe(stripe, columns)])


_READERS: dict[str, Callable[[Inventory, Any], Iterator[pa.Table]]] = {
    ".csv.gz": _csv,
    ".csv": _csv,
    ".parquet": _parquet,
    ".orc": _orc,
}


# --- manifests ---


def inventory_at(filesystem: fsspec.AbstractFileSystem, path: str) -> Inventory | None:
    """Return the inventory that a JSON file is the manifest of; None for another file.

    Raises
    ------
    SessError
        If it says too little of where its files are.
    """
    content = patiently(filesystem.cat_file, path, start=0, end=LARGEST)
    try:
        said = json.loads(content)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    where = uri_of(filesystem, path)
    try:
        if "sourceBucket" in said and "files" in said:
            return _of_s3(filesystem, path, said)
        if "report_shards_file_names" in said:
            return _of_google(filesystem, path, said)
    except (KeyError, TypeError, AttributeError) as error:
        raise SessError(f"{public(where)} is no whole manifest of an inventory: {one_line(error)}") from error
    return None


def _of_s3(filesystem: fsspec.AbstractFileSystem, path: str, said: dict[str, Any]) -> Inventory:
    keys = [entry["key"] for entry in said["files"]]
    root = _root(filesystem, path, keys)
    columns = [name.strip() for name in said["fileSchema"].split(",")] if said["fileFormat"] == "CSV" else None
    source, _ = open_filesystem(f"s3://{said['sourceBucket']}")
    files = [uri_of(filesystem, posixpath.join(root, key)) for key in keys]
    return Inventory(source, said["sourceBucket"], files, columns, quoted=columns is not None)


def _root(filesystem: fsspec.AbstractFileSystem, path: str, keys: list[str]) -> str:
    """Return where the keys of an inventory's files lie: in its bucket, or in a copy of that."""
    parts = path.split("/")
    if is_bucket(filesystem):
        return parts[0]
    above = ("/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((one for one in above if filesystem.exists(posixpath.join(one, *keys[:1]))), posixpath.dirname(path))


def _of_google(filesystem: fsspec.AbstractFileSystem, path: str, said: dict[str, Any]) -> Inventory:
    names = [posixpath.basename(name) for name in said["report_shards_file_names"]]
    files = [uri_of(filesystem, posixpath.join(posixpath.dirname(path), name)) for name in names]
    config = {_plain(name): value for name, value in said.get("report_config", {}).items()}
    written = {_plain(name): value for name, value in (config.get("csvoptions") or {}).items()}
    found = Inventory(filesystem, "", files, delimiter=written.get("delimiter") or ",")
    if names and names[0].lower().endswith(".csv"):
        with filesystem.open(posixpath.join(posixpath.dirname(path), names[0]), "rb") as handle:
            first = _header(handle, found.delimiter)
        found.columns = None if {"bucket", "name"} <= set(map(_plain, first)) else _fields(config, path)
    found.bucket = _bucket(found)
    found.filesystem, _ = open_filesystem(f"gs://{found.bucket}")
    return found


def _fields(config: dict[str, Any], path: str) -> list[str]:
    """Return the columns of CSV without a header, as the manifest has its settings."""
    options = {_plain(name): value for name, value in (config.get("objectmetadatareportoptions") or {}).items()}
    fields = options.get("metadatafields")
    if not fields:
        raise SessError(f"{public(path)}: its CSV has no header, and it does not say which columns there are")
    return [str(name) for name in fields]


def _bucket(inventory: Inventory) -> str:
    """Return the bucket that the first row is of: the manifest does not name it."""
    for url in inventory.files:
        for table in inventory._tables(url):
            for name in table.column_names:
                if _plain(name) == "bucket" and table.num_rows:
                    return str(table[name][0].as_py())
    return ""
