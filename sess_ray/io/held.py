"""What an output of spans holds, as the names of its files say; and that it holds each row once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.io.cuts import Cut
from sess_ray.io.ledger import by_weight, put_right, read_files
from sess_ray.io.pieces import (
    MARKS,
    Piece,
    Whole,
    by_folder,
    generations,
    is_scattered,
    newest,
    piece,
    piece_of,
    whole_of,
)
from sess_ray.io.store import Store

LOOKS = 3  # at what an output holds twice


@dataclass
class Tally:
    """What the files of a span hold.

    Attributes
    ----------
    has : Whole
        What their rows add up to.
    wholes : set of Whole
        What all rows of the span add up to, as the files say it: of a shard that has changed they may not agree.
    files : list of str
    """

    has: Whole = field(default_factory=Whole)
    wholes: set[Whole] = field(default_factory=set)
    files: list[str] = field(default_factory=list)

    def add(self, name: str, one: Piece) -> None:
        """Add a file."""
        self.has = Whole(self.has.rows + one.rows, (self.has.mark + one.mark) % MARKS)
        if one.whole:
            self.wholes.add(one.whole)
        self.files.append(name)

    @property
    def is_scattered(self) -> bool:
        """Whether there are files in a folder that are to be joined."""
        return any(map(is_scattered, by_folder(self.files).values()))

    def wholes_in(self, cut: Cut, span: int) -> set[Whole]:
        """Return what all rows of the span add up to, as far as it is known."""
        known = cut.whole(span)
        return self.wholes if known is None else {known}

    def is_whole(self, cut: Cut, span: int) -> bool:
        """Say whether they hold each row of the span once."""
        return self.has in self.wholes_in(cut, span)


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
    scattered : dict of int to list of str
        The files of those that have some in a folder that are to be joined.
    crowded : set of int
        Spans that have as many rows, and not each once.
    disputed : dict of int to list of str
        The files of each span that holds something twice, those that a joined one stands for among them.
    strangers : int
        Files that are of no span.
    """

    images: int = 0
    maps: int = 0
    errors: int = 0
    rows: dict[int, int] = field(default_factory=dict)
    files: dict[int, list[str]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    scattered: dict[int, list[str]] = field(default_factory=dict)
    crowded: set[int] = field(default_factory=set)
    disputed: dict[int, list[str]] = field(default_factory=dict)
    strangers: int = 0


def held(store: Store, cut: Cut, folders: Sequence[str] = ("maps", "errors")) -> Held:
    """List what an output holds; with `folders`, those alone."""
    found, tallies, left_over = Held(), dict[int, Tally](), dict[int, list[str]]()
    for folder in folders:
        names = store.files(folder, ".parquet")
        count = set(newest(names))
        for name in names:
            one = piece_of(name)
            if one is None or not cut.has(one.span):
                found.strangers += 1
            elif name not in count:
                left_over.setdefault(one.span, []).append(name)
            else:
                tallies.setdefault(one.span, Tally()).add(name, one)
                if folder == "maps":
                    found.images, found.maps = found.images + one.images, found.maps + one.maps
                else:
                    found.errors += one.images
    for span, tally in tallies.items():
        _sort(found, cut, span, tally)
        if span in found.crowded:
            found.disputed[span] = tally.files
    for span, names in left_over.items():
        found.disputed[span] = [*(tallies[span].files if span in tallies else ()), *names]
    return found


def _sort(found: Held, cut: Cut, span: int, tally: Tally) -> None:
    """Note whether a span is begun, finished, scattered or crowded."""
    found.rows[span], wholes = tally.has.rows, tally.wholes_in(cut, span)
    if tally.has in wholes:
        found.finished.add(span)
        if tally.is_scattered:
            found.scattered[span] = tally.files
        return
    found.files[span] = tally.files
    if any(tally.has.rows >= whole.rows for whole in wholes):
        found.crowded.add(span)


def images_in(store: Store, files: Iterable[str]) -> set[str]:
    """Return the ids of all images that some files hold."""
    ids: set[str] = set()
    for table in store.read_tables(list(files), ["image_id"]):
        ids.update(table["image_id"].to_pylist())
    return ids


def settled(store: Store, cut: Cut) -> Held:
    """List what an output holds, after whatever it holds twice has been removed."""
    found = held(store, cut)
    for _ in range(LOOKS if found.disputed else 0):
        for span, files in sorted(found.disputed.items()):
            with suppress(FileNotFoundError):  # a task that outlives its run is just removing what it has joined
                _mend(store, cut, span, files)
        found = held(store, cut)
        if not found.disputed:
            break
    return found


def _mend(store: Store, cut: Cut, span: int, files: Sequence[str]) -> None:
    """Remove what the files of a span hold twice, as `sess_ray.io.ledger.put_right` does."""
    first, outdated = by_weight(files)
    ledger = read_files(store, [*first, *outdated])
    whole = whole_of(one for one in map(piece_of, files) if one)

    @cache
    def numbers() -> dict[str, list[int]]:
        return cut.numbers(span, ledger.finished.to_pylist())

    def stem(folder: str, table: pa.Table) -> str:
        ids = pc.unique(table["image_id"]).to_pylist()
        own = [number for name in ids for number in numbers().get(name, ())]
        maps = table.num_rows if folder == "maps" else 0
        # Volumes without the last file do not count, and nothing that is written may make them count.
        generation = getattr(generations(first), folder)
        return piece(span, own, len(ids), maps, generation, whole=whole).stem

    put_right(store, outdated, ledger, stem)
