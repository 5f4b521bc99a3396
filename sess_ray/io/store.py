"""What is stored of a run: maps, errors and run.json.

Only plain Arrow types: pyarrow, pandas, DuckDB, Polars, Spark and Hugging Face `datasets` read it as it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.access import one_line, open_filesystem, patiently, public
from sess_ray.errors import RunError, SessError
from sess_ray.io.listing import BEGUN, WRITTEN, walk
from sess_ray.io.pieces import newest
from sess_ray.opening import is_chain, is_local

DICTIONARY = pa.dictionary(pa.int32(), pa.string())

MAPS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("target", pa.int32()),
        ("target_name", pa.string()),
        ("target_classes", pa.list_(pa.int32())),  # what the target means: itself, or the classes of a group
        ("score", pa.float32()),
        ("predicted", pa.int32()),
        ("predicted_score", pa.float32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("saliency", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("peak_x", pa.int32()),
        ("peak_y", pa.int32()),
        ("num_patches", pa.int32()),
        ("num_scored", pa.int32()),
        ("num_kept", pa.int32()),
        ("method", DICTIONARY),
        ("model", DICTIONARY),
    ]
)

ERRORS = pa.schema([("image_id", pa.string()), ("uri", pa.string()), ("stage", pa.string()), ("error", pa.string())])

STARTED, FINISHED = BEGUN, "run.json"
RUN = (STARTED, FINISHED, *WRITTEN)  # what the explain job writes
NAMED_BY = ("run", "image_id", "target", "problem")  # columns that tell rows apart, of those that a table has

HIDDEN = ".writing-"  # in front of the names of files that are not whole yet
READERS = 32  # small files that are read at the same time


def stored_target(classes: Sequence[int]) -> int:
    """Return what the column `target` says of a target that means these classes.

    One class is itself. A group is a negative number that is made of its classes: the same in every run, whatever else
    is explained there.

    >>> stored_target([207]), stored_target([281, 282]), stored_target([282, 281])
    (207, -1650317817, -1650317817)
    """
    if len(classes) == 1:
        return classes[0]
    return -1 - (zlib.crc32(",".join(map(str, sorted(classes))).encode()) >> 1)


class GoneError(SessError, FileNotFoundError):
    """A table that was listed is not there any more."""


class Store:
    """The output folder of a run, at a path or any URL that fsspec opens.

    Parameters
    ----------
    url : str
    """

    def __init__(self, url: str) -> None:
        if is_chain(url):
            raise SessError(
                f"{public(url)} is a chain of file systems, into which nothing is written: give the last one"
            )
        self.url = url.rstrip("/")
        self._filesystem, self._root = open_filesystem(self.url)
        self._local = is_local(self._filesystem)

    @property
    def location(self) -> str:
        """The URL for other processes, whose working folder may be another."""
        return self._root if self._local else self.url

    def path(self, name: str) -> str:
        """Return where a file of the run lies, as a person would type it."""
        return f"{public(self.url)}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Write a file, so that nobody ever sees half of it; where that fails in passing, again.

        Raises
        ------
        RunError
            If it goes on to fail.
        """
        # An object appears when its upload is complete: there nothing has to be renamed.
        write = _write_local if self._local else self._filesystem.pipe_file
        try:
            patiently(write, self._place(name), content)
        except Exception as error:
            raise RunError(f"cannot write {self.path(name)}: {one_line(error)}") from error

    def put(self, name: str, path: str) -> None:
        """Write a file as `write` does, from one on this machine: nothing of it need be in memory."""
        put = _put_local if self._local else self._filesystem.put_file
        try:
            patiently(put, path, self._place(name))
        except Exception as error:
            raise RunError(f"cannot write {self.path(name)}: {one_line(error)}") from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there; `RunError` where that is not allowed."""
        try:
            patiently(self._filesystem.rm_file, self._place(name))
        except FileNotFoundError:
            return
        except Exception as error:
            raise RunError(f"cannot remove {self.path(name)}: {one_line(error)}") from error

    def write_table(self, folder: str, table: pa.Table) -> str:
        """Write rows as folder/NAME.parquet, named by the rows they are: the same rows give the same file.

        Returns
        -------
        str
            The file's name in the store.
        """
        keys = [table[name].to_pylist() for name in NAMED_BY if name in table.column_names]
        return self.replace_table(folder, digest(zip(*keys, strict=True)), table)

    def replace_table(self, folder: str, stem: str, table: pa.Table) -> str:
        """Write rows as folder/STEM.parquet, or see to it that it is not there if there are no rows.

        Returns
        -------
        str
            The file's name in the store; empty without rows.
        """
        name = f"{folder}/{stem}.parquet"
        if not table.num_rows:
            self.remove(name)
            return ""
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.write(name, buffer.getvalue())
        return name

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the store to read it, from any place in it.

        Raises
        ------
        GoneError
            If it is not there any more.
        """
        try:
            return self._filesystem.open(self._place(name), "rb")
        except FileNotFoundError as error:
            raise GoneError(
                f"{self.path(name)} is gone: a run has put its rows into another file; try again"
            ) from error

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read one Parquet file of the store, or those of some columns that it has; `SessError` if it is damaged."""

        def read() -> pa.Table:
            with parquet(self, name) as file:
                return file.read(those_of(self, name, file, columns))

        return patiently(read)

    def read_tables(self, names: Sequence[str], columns: list[str] | None = None) -> list[pa.Table]:
        """Read many Parquet files as `read_table` does, several at a time.

        Raises
        ------
        SessError
            Naming the file that is damaged.
        """
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda name: self.read_table(name, columns), names))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Read a JSON object of the store; None where there is none, `SessError` where there is something else."""
        content: object = None
        with suppress(ValueError, RecursionError, IsADirectoryError):
            try:
                content = json.loads(patiently(self._filesystem.cat_file, self._place(name)))
            except FileNotFoundError:
                return None
        if not isinstance(content, dict):
            raise SessError(f"{self.path(name)} is damaged: remove it, and run again")
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        self.write(name, json.dumps(content, indent=2).encode() + b"\n")

    def tables(self, folder: str) -> list[str]:
        """Return the names of the Parquet files in a folder of the store that count, sorted: see `newest`."""
        return newest(self.files(folder, ".parquet"))

    def files(self, folder: str, ending: str) -> list[str]:
        """Return the names of the files in a folder of the store that end so, sorted."""
        self._filesystem.invalidate_cache()
        try:
            names = [posixpath.basename(path) for path in walk(self._filesystem, self._place(folder))]
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise SessError(f"{self.path(folder)} is a file, where the folder of a run should be: remove it") from error
        return sorted(f"{folder}/{name}" for name in names if name.endswith(ending) and not name.startswith("."))

    def is_used(self, names: Sequence[str] = RUN) -> bool:
        """Say whether a job has left something here: files or folders of these names."""
        self._filesystem.invalidate_cache()
        return any(patiently(self._filesystem.exists, self._place(name)) for name in names)

    def clear(self, names: Sequence[str] = RUN) -> None:
        """Remove what a job writes here, and nothing else."""
        for name in names:
            path = self._place(name)
            if patiently(self._filesystem.exists, path):
                patiently(self._filesystem.rm, path, recursive=True)

    def tidy(self) -> None:
        """Remove what writers that were killed have left half-written, under names that are no rows."""
        if not self._local:
            return
        for folder in (self._root, *(self._place(name) for name in RUN)):
            if os.path.isdir(folder):
                for entry in os.scandir(folder):
                    if entry.name.startswith(HIDDEN) and entry.is_file():
                        os.unlink(entry.path)

    def check_writable(self) -> None:
        """Raise `SessError` where nothing can be written here."""
        try:
            self.write(".probe", b"")
            self.remove(".probe")
        except RunError as error:
            raise SessError(f"{error}: choose another --output, or see --storage-option") from error

    def _place(self, name: str) -> str:
        return posixpath.join(self._root, name)


@contextmanager
def parquet(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of a store to read it; `SessError`, also while it is read, if it is damaged."""
    try:
        with store.open(name) as file:
            yield pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno):
            raise  # what the store says; Arrow's own have no number
        why = " ".join(str(error).split()).rstrip(".")
        raise SessError(f"{store.path(name)} is damaged ({why}): remove it, and run again") from error


def those_of(store: Store, name: str, file: pq.ParquetFile, columns: Sequence[str] | None) -> list[str] | None:
    """Return the columns that a file has, of those that are wanted; `SessError` where it knows of no images."""
    if columns is None:
        return None
    names = file.schema_arrow.names
    if "image_id" in columns and "image_id" not in names:
        raise SessError(f"{store.path(name)} holds no rows of a run: remove it")
    return [column for column in columns if column in names]


@dataclass
class Begun:
    """A file that is being written: where, on this machine, and what it will be called in the store."""

    path: str
    name: str = ""


@contextmanager
def whole(store: Store, folder: str) -> Iterator[Begun]:
    """Give a path on this machine to write to; what is there without an error becomes a file of a store's folder.

    What it is called may be said when it is written.
    """
    if not store._local:
        with tempfile.TemporaryDirectory() as held:
            begun = Begun(os.path.join(held, folder))
            yield begun
            store.put(begun.name, begun.path)
        return
    begun = Begun(_beside(store._place(f"{folder}/whole")))
    try:
        yield begun
        os.replace(begun.path, store._place(begun.name))
    finally:
        with suppress(FileNotFoundError):
            os.unlink(begun.path)


def digest(keys: Iterable[object]) -> str:
    """Return a file name for rows, by their keys in any order."""
    return hashlib.sha256(json.dumps(sorted(keys, key=str)).encode()).hexdigest()[:20]


def _write_local(path: str, content: bytes) -> None:
    hidden = _beside(path)
    with open(hidden, "wb") as file:
        file.write(content)
    os.replace(hidden, path)


def _put_local(found: str, path: str) -> None:
    hidden = _beside(path)
    shutil.copyfile(found, hidden)
    os.replace(hidden, path)


def _beside(path: str) -> str:
    """Return the name under which a file is written before it is whole; its folder is there."""
    folder, name = posixpath.split(path)
    os.makedirs(folder, exist_ok=True)
    return posixpath.join(folder, f"{HIDDEN}{name}.{uuid.uuid4().hex[:8]}")
