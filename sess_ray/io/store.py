"""What is stored of a run: maps, errors and run.json.

Only plain Arrow types: pyarrow, pandas, DuckDB, Polars, Spark and Hugging Face `datasets` read it as it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sess_ray.errors import SessError
from sess_ray.io.inputs import open_filesystem

DICTIONARY = pa.dictionary(pa.int32(), pa.string())

MAPS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("target", pa.int32()),
        ("target_name", pa.string()),
        ("score", pa.float32()),
        ("predicted", pa.int32()),
        ("predicted_score", pa.float32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("saliency", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("peak_x", pa.int32()),
        ("peak_y", pa.int32()),
        ("num_patches", pa.int32()),
        ("num_kept", pa.int32()),
        ("method", DICTIONARY),
        ("model", DICTIONARY),
    ]
)

ERRORS = pa.schema([("image_id", pa.string()), ("uri", pa.string()), ("stage", pa.string()), ("error", pa.string())])

RUN = ("run.json", "maps", "errors", "overlays")  # what the explain job writes
KEYS = ("run", "image_id", "target", "problem")  # columns that tell rows apart, in any table

MAP_LEVELS = 255  # 8-bit PNG: a fifth of the size of 16 bits, and opens in every viewer


def quantize(saliency: np.ndarray) -> np.ndarray:
    """Return a map (H, W) in 0..1 as uint8."""
    return np.rint(np.clip(saliency, 0, 1) * MAP_LEVELS).astype(np.uint8)


def encode_map(levels: np.ndarray) -> bytes:
    """Return a quantised map (H, W) uint8 as a greyscale PNG."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_map(png: bytes) -> np.ndarray:
    """Return the map (H, W) float32 in 0..1 of a stored PNG.

    >>> levels = np.array([[0, 51], [102, 255]], np.uint8)
    >>> decode_map(encode_map(levels)).tolist() == (levels / np.float32(255)).tolist()
    True
    """
    return np.asarray(Image.open(io.BytesIO(png)), np.float32) / MAP_LEVELS


class Store:
    """The output folder of a run, at a path or any URL that fsspec opens.

    Parameters
    ----------
    url : str
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._filesystem, self._root = open_filesystem(self.url)
        self._local = "file" in ((protocol,) if isinstance(protocol := self._filesystem.protocol, str) else protocol)

    def path(self, name: str) -> str:
        """Return where a file of the run lies, as a person would type it."""
        return f"{self.url}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Write a file, so that nobody ever sees half of it."""
        path = posixpath.join(self._root, name)
        if not self._local:  # an object appears when its upload is complete
            self._filesystem.pipe_file(path, content)
            return
        os.makedirs(posixpath.dirname(path), exist_ok=True)
        hidden = posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.{os.getpid()}")
        with open(hidden, "wb") as file:
            file.write(content)
        os.replace(hidden, path)

    def write_table(self, folder: str, table: pa.Table) -> str:
        """Write rows as folder/NAME.parquet, named by the rows they are: the same rows give the same file.

        Returns
        -------
        str
            The file's name in the store.
        """
        keys = [table[name].to_pylist() for name in KEYS if name in table.column_names]
        digest = hashlib.sha256(json.dumps(sorted(zip(*keys, strict=True), key=str)).encode()).hexdigest()[:20]
        name = f"{folder}/{digest}.parquet"
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.write(name, buffer.getvalue())
        return name

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read one Parquet file of the store, or some of its columns."""
        with self._filesystem.open(posixpath.join(self._root, name), "rb") as file:
            return pq.read_table(file, columns=columns)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file of the store; None where there is none."""
        try:
            content: dict[str, Any] = json.loads(self._filesystem.cat_file(posixpath.join(self._root, name)))
        except FileNotFoundError:
            return None
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        self.write(name, json.dumps(content, indent=2).encode() + b"\n")

    def tables(self, folder: str) -> list[str]:
        """Return the names of the Parquet files in a folder of the store, sorted."""
        self._filesystem.invalidate_cache()
        found = self._filesystem.glob(posixpath.join(self._root, folder, "*.parquet"))
        return sorted(f"{folder}/{posixpath.basename(path)}" for path in found)

    def is_used(self, names: Sequence[str] = RUN) -> bool:
        """Say whether a job has left something here: files or folders of these names."""
        self._filesystem.invalidate_cache()
        return any(self._filesystem.exists(posixpath.join(self._root, name)) for name in names)

    def clear(self, names: Sequence[str] = RUN) -> None:
        """Remove what a job writes here, and nothing else."""
        for name in names:
            path = posixpath.join(self._root, name)
            if self._filesystem.exists(path):
                self._filesystem.rm(path, recursive=True)

    def check_writable(self) -> None:
        """Raise `SessError` where nothing can be written here."""
        try:
            self.write(".probe", b"")
            self._filesystem.rm_file(posixpath.join(self._root, ".probe"))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            raise SessError(f"cannot write to output {self.url}: {reason}") from error
