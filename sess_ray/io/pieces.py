"""Pieces: the files of an output that hold rows of spans, and say in their names which.

What they say is enough to know what is finished, without one of them being opened: of each file, how many rows of the
manifest it holds, and a sum over them that no other rows have. Where some were written twice or are missing, the sums
of a span's files are not those of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.io.ledger import read_files, remove_surplus
from sess_ray.io.spans import Spans
from sess_ray.io.store import Store

_PIECE = re.compile(r"(?:.*/)?(\d{6,})-(\d+)-(\d+)-(\d+)-([0-9a-f]{16})\.parquet")


class Piece(NamedTuple):
    """What the name of a file of maps or errors says.

    Attributes
    ----------
    span : int
    rows : int
        Rows of the manifest, whose images are in the file.
    images, maps : int
        In the file; among errors there are no maps.
    mark : int
        As `mark_of` the rows.
    """

    span: int
    rows: int
    images: int
    maps: int
    mark: int

    @property
    def stem(self) -> str:
        """The name of the file, without its extension."""
        return f"{self.span:06}-{self.rows}-{self.images}-{self.maps}-{self.mark:016x}"


def piece_of(name: str) -> Piece | None:
    """Return what the name of a file says; None where it is not of a span.

    >>> piece_of("maps/000012-59-59-118-00000000000000ff.parquet")
    Piece(span=12, rows=59, images=59, maps=118, mark=255)
    >>> piece_of("maps/5b2c8cdd36a7d5e5b5a5.parquet")
    """
    found = _PIECE.fullmatch(name)
    if found is None:
        return None
    span, rows, images, maps = map(int, found.groups()[:4])
    return Piece(span, rows, images, maps, int(found[5], 16))


def piece(span: int, rows: Sequence[int], images: int, maps: int = 0) -> Piece:
    """Return what the name of a file says that holds rows of a span."""
    return Piece(span, len(rows), images, maps, mark_of(rows))


def mark_of(rows: Sequence[int]) -> int:
    """Return what tells rows from all others, whatever their order: a sum of 64 bits, so that those of files add up."""
    numbers = np.arange(rows.start, rows.stop) if isinstance(rows, range) else np.array(rows, np.int64)
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)  # splitmix64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return int((mixed ^ (mixed >> np.uint64(31))).sum(dtype=np.uint64))


# --- places: what travels with an image ---


def place(span: int, rows: Sequence[int]) -> bytes:
    """Return a span and rows of it as a cell."""
    return np.array([span, *rows], np.int64).tobytes()


def place_of(cell: bytes) -> tuple[int, list[int]]:
    """Return the span and the rows of a cell.

    >>> place_of(place(3, [1538, 1539]))
    (3, [1538, 1539])
    """
    span, *rows = np.frombuffer(cell, np.int64).tolist()
    return span, rows


# --- what an output holds ---


@dataclass
class Held:
    """What an output of spans holds, by the names of its files.

    Attributes
    ----------
    images, maps, errors : int
    rows : dict of int to int
        How many rows the files of a span hold.
    files : dict of int to list of str
        The files of each span that is begun and not finished.
    finished : set of int
        Spans of which each row is there once.
    crowded : set of int
        Those that have as many rows, and not each once.
    strangers : int
        Files that are of no span.
    """

    images: int = 0
    maps: int = 0
    errors: int = 0
    rows: dict[int, int] = field(default_factory=dict)
    files: dict[int, list[str]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    crowded: set[int] = field(default_factory=set)
    strangers: int = 0


def held(store: Store, spans: Spans, folders: Sequence[str] = ("maps", "errors")) -> Held:
    """List what an output holds; with `folders`, those alone."""
    found, marks = Held(), dict[int, int]()
    for folder in folders:
        for name in store.tables(folder):
            one = piece_of(name)
            if one is None or one.span >= spans.count:
                found.strangers += 1
                continue
            if folder == "maps":
                found.images, found.maps = found.images + one.images, found.maps + one.maps
            else:
                found.errors += one.images
            found.files.setdefault(one.span, []).append(name)
            found.rows[one.span] = found.rows.get(one.span, 0) + one.rows
            marks[one.span] = (marks.get(one.span, 0) + one.mark) % 2**64
    for span, rows in found.rows.items():
        begin, end = spans.bounds(span)
        if rows == end - begin and marks[span] == mark_of(range(begin, end)):
            found.finished.add(span)
            del found.files[span]
        elif rows >= end - begin:
            found.crowded.add(span)
    return found


def images_in(store: Store, files: Iterable[str]) -> set[str]:
    """Return the ids of all images that some files hold."""
    ids: set[str] = set()
    for table in store.read_tables(list(files), ["image_id"]):
        ids.update(table["image_id"].to_pylist())
    return ids


def settled(store: Store, spans: Spans) -> Held:
    """List what an output holds, after whatever it holds twice has been removed."""
    found = held(store, spans)
    mended = [_mend(store, spans, span, found.files[span]) for span in sorted(found.crowded)]
    return held(store, spans) if any(mended) else found


def _mend(store: Store, spans: Spans, span: int, files: Sequence[str]) -> int:
    """Remove what a span holds twice, as `remove_surplus` does; return the number of rows."""
    rows = {image["image_id"]: numbers for image, numbers in spans.images(span)}

    def stem(folder: str, table: pa.Table) -> str:
        ids = pc.unique(table["image_id"]).to_pylist()
        own = [number for name in ids for number in rows.get(name, ())]
        return piece(span, own, len(ids), table.num_rows if folder == "maps" else 0).stem

    return remove_surplus(store, read_files(store, files), stem)
