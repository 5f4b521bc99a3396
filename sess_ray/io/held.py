"""What an output of spans holds, as the names of its files say; and that it holds each row once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.io.ledger import by_weight, put_right, read_files
from sess_ray.io.pieces import MARKS, Piece, by_folder, generations, mark_of, newest, piece, piece_of
from sess_ray.io.spans import Spans
from sess_ray.io.store import Store

LOOKS = 3  # at what an output holds twice


@dataclass
class Tally:
    """What the files of a span hold.

    Attributes
    ----------
    rows, mark : int
        Sums of what their names say.
    files : list of str
    """

    rows: int = 0
    mark: int = 0
    files: list[str] = field(default_factory=list)

    def add(self, name: str, one: Piece) -> None:
        """Add a file."""
        self.rows, self.mark = self.rows + one.rows, (self.mark + one.mark) % MARKS
        self.files.append(name)

    @property
    def is_scattered(self) -> bool:
        """Whether there are several files in a folder."""
        return any(len(own) > 1 for own in by_folder(self.files).values())

    def is_whole(self, spans: Spans, span: int) -> bool:
        """Say whether they hold each row of the span once."""
        begin, end = spans.bounds(span)
        return self.rows == end - begin and self.mark == mark_of(range(begin, end))


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
        The files of those that have several in a folder.
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


def held(store: Store, spans: Spans, folders: Sequence[str] = ("maps", "errors")) -> Held:
    """List what an output holds; with `folders`, those alone."""
    found, tallies, left_over = Held(), dict[int, Tally](), dict[int, list[str]]()
    for folder in folders:
        names = store.files(folder, ".parquet")
        count = set(newest(names))
        for name in names:
            one = piece_of(name)
            if one is None or one.span >= spans.count:
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
        _sort(found, spans, span, tally)
        if span in found.crowded or span in left_over:
            found.disputed[span] = [*tally.files, *left_over.get(span, ())]
    return found


def _sort(found: Held, spans: Spans, span: int, tally: Tally) -> None:
    """Note whether a span is begun, finished, scattered or crowded."""
    begin, end = spans.bounds(span)
    found.rows[span] = tally.rows
    if tally.is_whole(spans, span):
        found.finished.add(span)
        if tally.is_scattered:
            found.scattered[span] = tally.files
        return
    found.files[span] = tally.files
    if tally.rows >= end - begin:
        found.crowded.add(span)


def images_in(store: Store, files: Iterable[str]) -> set[str]:
    """Return the ids of all images that some files hold."""
    ids: set[str] = set()
    for table in store.read_tables(list(files), ["image_id"]):
        ids.update(table["image_id"].to_pylist())
    return ids


def settled(store: Store, spans: Spans) -> Held:
    """List what an output holds, after whatever it holds twice has been removed."""
    found = held(store, spans)
    for _ in range(LOOKS if found.disputed else 0):
        for span, files in sorted(found.disputed.items()):
            with suppress(FileNotFoundError):  # a task that outlives its run is just removing what it has joined
                _mend(store, spans, span, files)
        found = held(store, spans)
        if not found.disputed:
            break
    return found


def _mend(store: Store, spans: Spans, span: int, files: Sequence[str]) -> None:
    """Remove what the files of a span hold twice, as `sess_ray.io.ledger.put_right` does."""

    @cache
    def rows() -> dict[str, list[int]]:
        return {image["image_id"]: numbers for image, numbers in spans.images(span)}

    def stem(folder: str, table: pa.Table) -> str:
        ids = pc.unique(table["image_id"]).to_pylist()
        own = [number for name in ids for number in rows().get(name, ())]
        maps = table.num_rows if folder == "maps" else 0
        return piece(span, own, len(ids), maps, getattr(generations(files), folder)).stem

    first, outdated = by_weight(files)
    put_right(store, outdated, read_files(store, [*first, *outdated]), stem)
