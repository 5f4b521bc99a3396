"""Manifests that `sess-ray list` writes: images of any input, in Parquet; a run over them need not hold their ids.

A list is kept in parts beside its manifest until it is whole, so that it goes on where it was stopped: each part has in
its metadata what was listed until then. The manifest is made of them at the end. The same images give the same bytes.
"""

from __future__ import annotations

import io
import json
import posixpath
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sess_ray.access import one_line, open_filesystem, public
from sess_ray.errors import RunError, SessError
from sess_ray.io.columns import FOLDER, LISTED
from sess_ray.io.items import shard_rows
from sess_ray.io.store import Store
from sess_ray.opening import is_local

GROUP = 10_000  # rows of a row group: who wants some of them has to pass the beginning of their group
MOST_FOLDERS = 50_000  # of more the manifest does not name all: they are no classes
LABEL, TARGETS = "label", "targets"
# What a part holds. A manifest has of the last three those that say something.
ROWS = pa.schema(
    [
        ("uri", pa.string()),
        ("image_id", pa.string()),
        (LABEL, pa.list_(pa.string())),
        (TARGETS, pa.list_(pa.string())),
        (FOLDER, pa.string()),
    ]
)


@dataclass
class Progress:
    """How far a list is; the metadata of each part.

    Attributes
    ----------
    asked : dict
        The settings that say what is listed.
    part : int
        Number of parts.
    items : int
        Images of the input, rows of one image counted one by one.
    rows : int
        Images that are written.
    last : list of str or None
        The id and the place of the last one.
    others : dict of str to int
        The files that were left out, by their extensions.
    names : list of lists of str
        As `sess_ray.io.inputs.Inputs.class_names`.
    failed : int
        Rows that name no image.
    why : str or None
        The first of them.
    said : list of str
        The columns that say something of an image.
    several : bool
        Whether an image has several labels.
    whole : bool
        Whether this is all.
    """

    asked: dict[str, Any]
    part: int = 0
    items: int = 0
    rows: int = 0
    last: list[str] | None = None
    others: dict[str, int] = field(default_factory=dict)
    names: list[list[str]] = field(default_factory=list)
    failed: int = 0
    why: str | None = None
    said: list[str] = field(default_factory=list)
    several: bool = False
    whole: bool = False

    def add(self, images: pa.Table, listed: int, last: list[str]) -> None:
        """Count a part.

        Parameters
        ----------
        images : pa.Table
            As `ITEMS` has them.
        listed : int
            Images of the input that they are of.
        last : list of str
            The id and the place of the last one.
        """
        self.part, self.items, self.rows, self.last = (
            self.part + 1,
            self.items + listed,
            self.rows + images.num_rows,
            last,
        )
        errors = images["error"].drop_null()
        self.failed += len(errors)
        self.why = self.why or (errors[0].as_py() if len(errors) else None)
        for name, column in ((LABEL, "labels"), (TARGETS, "targets"), (FOLDER, "folder")):
            if name not in self.said and images[column].null_count < images.num_rows:
                self.said.append(name)
        self.several = self.several or (pc.max(pc.list_value_length(images["labels"])).as_py() or 0) > 1


@dataclass
class Manifest:
    """A manifest that is written, and its parts beside it.

    Parameters
    ----------
    url : str
        Its path or URL.
    """

    url: str

    def __post_init__(self) -> None:
        folder, self._name = posixpath.split(self.url)
        self._store = Store(folder or ".")
        self._folder = f".{self._name}.parts"

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return self._store.is_used([self._name])

    def check_writable(self) -> None:
        """Raise `SessError` where nothing can be written."""
        self._store.check_writable()

    def progress(self) -> Progress | None:
        """Return how far a list was when it was stopped; None where there is none."""
        names = self._store.files(self._folder, ".parquet")
        if not names:
            return None
        try:
            said = json.loads(self._store.read_table(names[-1], []).schema.metadata[LISTED])
            found = Progress(**said)
        except (KeyError, TypeError, ValueError, pa.ArrowInvalid):  # of another version
            return None
        return found if found.part == len(names) else None

    def clear(self) -> None:
        """Remove the parts."""
        self._store.clear([self._folder])

    def add(self, images: pa.Table, progress: Progress) -> None:
        """Write a part.

        Raises
        ------
        SessError
            If there is a tar shard among the images: how many it holds shows when it is read.
        RunError
            If it cannot be written.
        """
        if pc.any(shard_rows(images["uri"])).as_py():
            raise SessError(
                "tar shards are listed in no manifest: sess-ray explain takes their folder, or a glob, as it is,"
                " and holds a row a shard"
            )
        places = pc.if_else(pc.is_valid(images["error"]), pa.scalar(None, pa.string()), images["uri"])
        columns = [places, images["image_id"], images["labels"], images["targets"], images["folder"]]
        schema = ROWS.with_metadata({LISTED: json.dumps(asdict(progress))})
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd")
        self._store.write(f"{self._folder}/{progress.part:08}.parquet", buffer.getvalue())

    def finish(self, progress: Progress) -> None:
        """Make the manifest of its parts, and remove these.

        Raises
        ------
        RunError
            If it cannot be written.
        """
        parts = self._store.files(self._folder, ".parquet")
        folders = self._folders(parts) if FOLDER in progress.said else None
        schema = _schema(progress, folders)
        filesystem, path = open_filesystem(self.url)
        beside = posixpath.join(posixpath.dirname(path), self._folder) if is_local(filesystem) else None
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=beside) as held:
            made = Path(held, self._name)
            try:
                with pq.ParquetWriter(made, schema, compression="zstd", use_dictionary=[LABEL, FOLDER]) as writer:
                    for table in _groups(self._rows(parts)):
                        writer.write_table(_with_columns(table, schema), row_group_size=GROUP)
            except OSError as error:
                raise RunError(f"cannot write {public(self.url)}: {one_line(error)}") from error
            self._store.put(self._name, str(made))
        self.clear()

    def _rows(self, parts: list[str]) -> Iterator[pa.Table]:
        return (self._store.read_table(part) for part in parts)

    def _folders(self, parts: list[str]) -> list[str] | None:
        """Return the folders of all images, sorted; None where they are too many."""
        found: set[str] = set()
        for part in parts:
            found.update(self._store.read_table(part, [FOLDER])[FOLDER].unique().drop_null().to_pylist())
            if len(found) > MOST_FOLDERS:
                return None
        return sorted(found)


def _schema(progress: Progress, folders: list[str] | None) -> pa.Schema:
    kinds = {LABEL: ROWS.field(LABEL).type if progress.several else pa.string()}
    fields = [ROWS.field(name) for name in ("uri", "image_id")]
    fields += [pa.field(name, kinds.get(name, ROWS.field(name).type)) for name in ROWS.names if name in progress.said]
    return pa.schema(fields, metadata=_metadata(progress, folders))


def _metadata(progress: Progress, folders: list[str] | None) -> dict[bytes, bytes]:
    told = {LISTED: json.dumps({"folders": folders}).encode()}
    # Names that are numbers would be taken for indices of these names.
    if len(progress.names) == 1 and LABEL in progress.said and not any(map(str.isdecimal, progress.names[0])):
        feature = {"_type": "ClassLabel", "names": progress.names[0]}
        features = {LABEL: {"_type": "Sequence", "feature": feature} if progress.several else feature}
        told[b"huggingface"] = json.dumps({"info": {"features": features}}).encode()
    return told


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if LABEL in schema.names and schema.field(LABEL).type == pa.string():
        table = table.set_column(table.column_names.index(LABEL), LABEL, pc.list_element(table[LABEL], 0))
    return pa.table([table[name] for name in schema.names], schema=schema)


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield rows in groups of one size; the last has what is left."""
    left = ROWS.empty_table()
    for table in tables:
        left = pa.concat_tables([left, table.replace_schema_metadata(None)])
        while left.num_rows >= GROUP:
            yield left.slice(0, GROUP).combine_chunks()
            left = left.slice(GROUP)
    if left.num_rows:
        yield left
