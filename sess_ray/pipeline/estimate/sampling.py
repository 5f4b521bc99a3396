"""A look at some images of the input, spread over it: how many they are, how large, and which cannot be read."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count, islice
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.access import one_line, open_filesystem, patiently
from sess_ray.io.decode import Sides, enough, opened
from sess_ray.io.items import shard_rows, split_uri
from sess_ray.io.reading import stream_items
from sess_ray.io.shards import read_shard

MOST_HEADERS = 2000  # that are read
SECONDS = 3.0
WHOLE = 48  # of these the content is held
TOGETHER = 16  # files that are read at the same time
NEIGHBOURS = 8  # a row of a Parquet file is read with others: its row group has to be read anyway
OF_SHARD = 64  # images of one tar shard
Content = tuple[dict[str, Any], bytes | Exception]  # of a task
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Seen:
    """An image that was looked at.

    Attributes
    ----------
    task : dict
        A row of `sess_ray.pipeline.explain.stages.TASKS`, with the label that its shard gives it.
    height, width : int
        As it is explained; 0 where there is no telling.
    windows : int
        0 where the image cannot be explained.
    content : bytes or None
    error : str
        Why the image cannot be explained.
    """

    task: dict[str, Any]
    height: int
    width: int
    windows: int
    content: bytes | None = None
    error: str = ""


@dataclass
class Stratum:
    """A part of the input: its tar shards, or all that is no shard.

    Attributes
    ----------
    images : float
        How many they are; of shards, how many they seem to be.
    shards : int
        That hold them.
    seen : list of Seen
        Spread over them.
    """

    images: float
    shards: int = 0
    seen: list[Seen] = field(default_factory=list)

    @property
    def good(self) -> float:
        """Images that can be explained, as far as their headers say."""
        return self.images * fmean(one.windows > 0 for one in self.seen)

    @property
    def windows(self) -> float:
        return self.images * fmean(one.windows for one in self.seen)


def spread(number: int) -> Iterator[int]:
    """Yield 0 .. number - 1 in an order of which every beginning is spread evenly.

    >>> list(spread(8))
    [0, 4, 1, 6, 3, 5, 2, 7]
    """
    had: set[int] = set()
    for step in count():
        if len(had) == number:
            return
        place = int(step * GOLDEN % 1 * number)
        if place not in had:
            had.add(place)
            yield place


def look(
    tasks: pa.Table, windows: Callable[[int, int], int], max_pixels: int, needed: Sides | None = None, done: int = 0
) -> list[Stratum]:
    """Look at some images of the tasks for some seconds.

    Parameters
    ----------
    tasks : pa.Table
        As `sess_ray.pipeline.explain.stages.TASKS` has them.
    windows : callable
        Height and width to the number of windows; `SessError` where the image cannot be explained.
    max_pixels : int
        Larger images cannot.
    needed : (int, int), optional
        Larger images are shrunk; see `sess_ray.io.decode.enough`.
    done : int
        Images of the tar shards that are not to be explained.

    Returns
    -------
    list of Stratum
        None of them empty.
    """
    tasks = tasks.filter(pc.is_null(tasks["error"]))
    is_shard = shard_rows(tasks["uri"])
    shards, plain = tasks.filter(is_shard), tasks.filter(pc.invert(is_shard))
    found = []

    def size(content: bytes) -> tuple[int, int]:
        return enough(*_size(content, max_pixels), needed)

    seconds = SECONDS / 2 if plain.num_rows and shards.num_rows else SECONDS
    if plain.num_rows:
        stratum = Stratum(plain.num_rows)
        _look(stratum, _plain(plain), size, windows, seconds)
        found.append(stratum)
    if shards.num_rows:
        stratum = Stratum(0, shards.num_rows)
        sizes: list[float] = []
        with closing(_shards(shards, sizes)) as contents:
            _look(stratum, contents, size, windows, seconds)
        stratum.images = max(len(stratum.seen), sum(sizes) / max(1, len(sizes)) * shards.num_rows - done)
        found.append(stratum)
    return [stratum for stratum in found if stratum.seen]


def _look(
    stratum: Stratum,
    contents: Iterator[Content],
    size: Callable[[bytes], tuple[int, int]],
    windows: Callable[[int, int], int],
    seconds: float,
) -> None:
    end = time.monotonic() + seconds
    for task, content in islice(contents, MOST_HEADERS):
        try:
            if isinstance(content, Exception):
                raise content
            height, width = size(content)
            held = content if len(stratum.seen) < WHOLE else None
            stratum.seen.append(Seen(task, height, width, windows(height, width), held))
        except Exception as error:
            stratum.seen.append(Seen(task, 0, 0, 0, error=one_line(error)))
        if time.monotonic() > end:
            return


def _size(content: bytes, max_pixels: int) -> tuple[int, int]:
    """Return (height, width) as the header says; which of them is which, a rotation by EXIF may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = opened(content, max_pixels)
    return image.height, image.width


def _plain(tasks: pa.Table) -> Iterator[Content]:
    together = NEIGHBOURS if split_uri(tasks["uri"][0].as_py())[1] is not None else 1
    starts = spread(math.ceil(tasks.num_rows / together))
    while some := list(islice(starts, TOGETHER // together)):
        rows = pa.concat_tables([tasks.slice(start * together, together) for start in some]).to_pylist()
        for index, content in stream_items([row["uri"] for row in rows]):
            yield rows[index], content


def _shards(shards: pa.Table, sizes: list[float]) -> Generator[Content]:
    """Yield the first images of some shards, and note how many each seems to hold: by the bytes that they take."""
    for place in spread(shards.num_rows):
        [shard] = shards.slice(place, 1).to_pylist()
        had, behind = 0, None
        try:
            for image in islice(read_shard(shard["uri"]), OF_SHARD):
                had, behind = had + 1, image.behind
                assert image.content is not None
                yield {**shard, "label": image.label}, image.content
        except Exception as error:
            yield shard, error
        finally:  # also when there is no time for more
            sizes.append(had / behind * (_bytes(shard["uri"]) or behind) if behind else had)


def _bytes(uri: str) -> int | None:
    filesystem, path = open_filesystem(uri)
    size: int | None = patiently(filesystem.size, path)
    return size
