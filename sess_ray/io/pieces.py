"""Pieces: the files of an output that hold rows of spans, and say in their names which.

What they say is enough to know what is finished, without one of them being opened: of each file, how many rows of the
span it holds, and a sum over them that no other rows have. Where some were written twice or are missing, the sums of a
span's files are not those of its rows. Of a tar shard nobody knows the sums before it is read to its end: there the
name of the file with what was read last says them.

The files of a finished span are joined to one, of the next generation. Of a span and a folder only files of the highest
generation count: so the joined file takes the place of the others in the moment in which it is there. If it would be
too large, there are volumes before it, which count from the moment on in which the last file is there, that has no
number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_PIECE = re.compile(
    r"(?:.*/)?(\d{6,})-(\d+)-(\d+)-(\d+)-([0-9a-f]{16})(?:-of(\d+)-([0-9a-f]{16}))?(?:-g([1-9]\d*)(?:v([1-9]\d*))?)?"
    r"\.parquet"
)
_JOINED = "-g"  # in the names of files that are not of the first generation
MARKS = 2**64


class Whole(NamedTuple):
    """What rows add up to: all of a span, or those that were seen so far."""

    rows: int = 0
    mark: int = 0

    def plus(self, rows: Sequence[int]) -> Whole:
        """Return what these rows and others add up to."""
        return Whole(self.rows + len(rows), (self.mark + mark_of(rows)) % MARKS)


class Piece(NamedTuple):
    """What the name of a file of maps or errors says.

    Attributes
    ----------
    span : int
    rows : int
        Rows of the span, whose images are in the file.
    images, maps : int
        In the file; among errors there are no maps.
    mark : int
        As `mark_of` the rows.
    generation : int
        How often the files of the span, in this folder, had been joined when it was written.
    volume : int
        The number of a volume; 0 for all other files.
    whole : Whole or None
        What all rows of the span add up to, where this file says it.
    """

    span: int
    rows: int
    images: int
    maps: int
    mark: int
    generation: int = 0
    volume: int = 0
    whole: Whole | None = None

    @property
    def stem(self) -> str:
        """The name of the file, without its extension."""
        whole = f"-of{self.whole.rows}-{self.whole.mark:016x}" if self.whole else ""
        volume = f"v{self.volume}" if self.volume else ""
        joined = f"{_JOINED}{self.generation}{volume}" if self.generation else ""
        return f"{self.span:06}-{self.rows}-{self.images}-{self.maps}-{self.mark:016x}{whole}{joined}"


def piece_of(name: str) -> Piece | None:
    """Return what the name of a file says; None where it is not of a span.

    >>> piece_of("maps/000012-59-59-118-00000000000000ff.parquet")
    Piece(span=12, rows=59, images=59, maps=118, mark=255, generation=0, volume=0, whole=None)
    >>> piece_of("maps/000012-59-59-118-00000000000000ff-g1.parquet").generation
    1
    >>> piece_of("maps/000012-59-59-118-00000000000000ff-of99-000000000000ffff-g1v2.parquet")[5:]
    (1, 2, Whole(rows=99, mark=65535))
    >>> piece_of("maps/5b2c8cdd36a7d5e5b5a5.parquet")
    """
    found = _PIECE.fullmatch(name)
    if found is None:
        return None
    span, rows, images, maps = map(int, found.groups()[:4])
    whole = Whole(int(found[6]), int(found[7], 16)) if found[6] else None
    return Piece(span, rows, images, maps, int(found[5], 16), int(found[8] or 0), int(found[9] or 0), whole)


def piece(
    span: int,
    rows: Sequence[int],
    images: int,
    maps: int = 0,
    generation: int = 0,
    volume: int = 0,
    whole: Whole | None = None,
) -> Piece:
    """Return what the name of a file says that holds rows of a span."""
    return Piece(span, len(rows), images, maps, mark_of(rows), generation, volume, whole)


def joined(pieces: Sequence[Piece]) -> Piece:
    """Return what the name of the file says that several of a span, in one folder, are joined to."""
    rows, images, maps, mark = (sum(numbers) for numbers in list(zip(*pieces, strict=True))[1:5])
    generation = 1 + max(one.generation for one in pieces)
    return Piece(pieces[0].span, rows, images, maps, mark % MARKS, generation, whole=whole_of(pieces))


def whole_of(pieces: Iterable[Piece]) -> Whole | None:
    """Return what all rows of a span add up to, where files say it; of several, whose shard has grown, the most."""
    return max((one.whole for one in pieces if one.whole), default=None)


def by_folder(files: Iterable[str]) -> dict[str, list[str]]:
    """Return files by the folder that they are in, in their order.

    >>> by_folder(["maps/a.parquet", "errors/b.parquet", "maps/c.parquet"])
    {'maps': ['maps/a.parquet', 'maps/c.parquet'], 'errors': ['errors/b.parquet']}
    """
    found: dict[str, list[str]] = {}
    for name in files:
        found.setdefault(name.partition("/")[0], []).append(name)
    return found


def newest(names: list[str]) -> list[str]:
    """Return those files of a folder that count: of a span those of the highest generation, and all that are of none.

    A generation of which there are nothing but volumes is not there yet.

    >>> newest(["maps/000012-59-59-59-00000000000000ff.parquet", "maps/000012-99-99-99-000000000000ffff-g1.parquet"])
    ['maps/000012-99-99-99-000000000000ffff-g1.parquet']
    >>> newest(["maps/000012-99-99-99-00000000000000ff.parquet", "maps/000012-59-59-59-000000000000ffff-g1v1.parquet"])
    ['maps/000012-99-99-99-00000000000000ff.parquet']
    """
    highest: dict[int, int] = {}
    joined = [found for found in (piece_of(name) for name in names if _JOINED in name) if found is not None]
    if not joined:
        return names
    for last in joined:
        if not last.volume:
            highest[last.span] = max(last.generation, highest.get(last.span, 0))
    return [name for name in names if not (one := piece_of(name)) or one.generation == highest.get(one.span, 0)]


def is_scattered(names: Iterable[str]) -> bool:
    """Say whether files of a span, in one folder, are to be joined: all but volumes and their last file are.

    >>> is_scattered(["m/000012-9-9-9-00000000000000ff-g1v1.parquet", "m/000012-2-2-2-000000000000ffff-g1.parquet"])
    False
    """
    return sum(not one.volume for one in map(piece_of, names) if one) > 1


def mark_of(rows: Sequence[int]) -> int:
    """Return what tells rows from all others, whatever their order: a sum of 64 bits, so that those of files add up."""
    numbers = np.arange(rows.start, rows.stop) if isinstance(rows, range) else np.array(rows, np.int64)
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)  # splitmix64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return int((mixed ^ (mixed >> np.uint64(31))).sum(dtype=np.uint64))


# --- places: what travels with an image ---


class Generations(NamedTuple):
    """The generation that the files of a span have, in each folder."""

    maps: int = 0
    errors: int = 0


def generations(files: Sequence[str]) -> Generations:
    """Return of which generation files are, so that those that are written beside them count as they do.

    >>> generations(["maps/000012-99-99-99-000000000000ffff-g1.parquet"])
    Generations(maps=1, errors=0)
    """
    own = by_folder(files)
    pieces = (map(piece_of, own.get(folder, ())) for folder in Generations._fields)
    return Generations(*(max((one.generation for one in some if one), default=0) for some in pieces))


class Place(NamedTuple):
    """Where an image belongs.

    Attributes
    ----------
    span : int
    generations : Generations
        Those of the files that it will be in.
    whole : Whole or None
        What all rows of the span add up to, where nobody has known it before.
    rows : list of int
        Those of the image.
    """

    span: int
    generations: Generations
    whole: Whole | None
    rows: list[int]


def place(
    span: int,
    rows: Sequence[int],
    generations: Generations = Generations(),  # noqa: B008
    whole: Whole | None = None,
) -> bytes:
    """Return where an image belongs as a cell."""
    mark = np.uint64(whole.mark).astype(np.int64) if whole else 0
    return np.array([span, *generations, whole.rows if whole else 0, mark, *rows], np.int64).tobytes()


def place_of(cell: bytes) -> Place:
    """Return what a cell says.

    >>> place_of(place(3, [1538, 1539])).rows
    [1538, 1539]
    >>> place_of(place(3, [1538], whole=Whole(9, 2**64 - 1))).whole == Whole(9, 2**64 - 1)
    True
    """
    span, maps, errors, total, mark, *rows = np.frombuffer(cell, np.int64).tolist()
    return Place(span, Generations(maps, errors), Whole(total, mark % MARKS) if total else None, rows)
