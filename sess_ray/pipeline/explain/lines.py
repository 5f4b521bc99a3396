"""Lines: what the driver holds of a large manifest, one for each span or part of one.

The rows of a line are read where its images are, so a run over any number of images has some thousand lines.
"""

from __future__ import annotations

from itertools import chain
from math import ceil

import pyarrow as pa

from sess_ray.io.held import Held
from sess_ray.pipeline.explain.blocks import MAX_BLOCK_ROWS, block_rows, fast_rows
from sess_ray.pipeline.explain.source import Source

LINES = pa.schema(
    [
        ("span", pa.int32()),
        ("begin", pa.int64()),  # of the manifest's rows
        ("end", pa.int64()),
        ("files", pa.list_(pa.string())),  # of a span that another run has begun: what they hold is left out
    ]
)
MOST_LINES = 2048  # each takes the driver a millisecond before the first image is read
LAST = 4  # lines of an actor that are smaller, lest one waits for another in the end
RAMP = MAX_BLOCK_ROWS.bit_length()  # lines of 1, 2, 4, ... images, so that the first rows are there soon


def lines(source: Source, held: Held, actors: int, most: int) -> list[pa.Table]:
    """Cut what is left into lines.

    Parameters
    ----------
    source : Source
    held : Held
        What the output holds.
    actors : int
    most : int
        As of `most_rows`.

    Returns
    -------
    list of pa.Table
        Each a block of one line. First come small ones of a span that is untouched; of a span that another run has
        begun, the process that reads it compares ids.
    """
    left = source.left(held)
    fresh = [span for span in left if span not in held.files]
    begun = [span for span in left if span in held.files]
    images = sum(left[span] for span in fresh)
    small, *others = _parts(source, fresh, images, actors, most) or [[]]
    again = (_begun(source, span, held.files[span], actors, most) for span in begun)
    found = chain(small, chain.from_iterable(again), *others)
    return [pa.table([[cell] for cell in line], schema=LINES) for line in found]


def _begun(source: Source, span: int, files: list[str], actors: int, most: int) -> list[list[object]]:
    """Return the lines of a span that another run has begun: one, but for a slow method, which is written often."""
    begin, end = _bounds(source, span)
    rows = end - begin if most >= fast_rows(actors) else most
    return [[span, at, min(at + rows, end), files] for at in range(begin, end, rows)]


def _bounds(source: Source, span: int) -> tuple[int, int]:
    begin, end = source.spans.bounds(span)
    return begin, min(end, source.stop)


def _parts(source: Source, spans: list[int], images: int, actors: int, most: int) -> list[list[list[object]]]:
    """Return the lines of untouched spans, in each a list of its own."""
    few = ceil(images / MOST_LINES) if most >= fast_rows(actors) else 0
    left, number, found = images, 0, []
    for span in spans:
        at, end = _bounds(source, span)
        parts: list[list[object]] = []
        while at < end:
            rows = block_rows(number, left, images, actors, most)
            if number > RAMP:
                rows = max(rows, min(few, ceil(left / (LAST * actors))))
                rows = ceil((end - at) / ceil((end - at) / rows))  # no small rest
            rows = min(rows, end - at)
            parts.append([span, at, at + rows, None])
            at, left, number = at + rows, left - rows, number + 1
        found.append(parts)
    return found
