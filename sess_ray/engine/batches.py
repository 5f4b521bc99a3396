"""Which images are in the scoring pass, and whose windows fill the next batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sess_ray.engine.work import Work
from sess_ray.transfer import upload


@dataclass(frozen=True)
class Segment:
    """The rows of a batch that belong to one image.

    Attributes
    ----------
    work : Work
    first : int
        The first row that is a window.
    windows : list of int
        Their windows, ascending.
    whole : int or None
        The row that shows the whole image.
    """

    work: Work
    first: int
    windows: list[int]
    whole: int | None

    @property
    def rows(self) -> slice:
        """The rows that are windows."""
        return slice(self.first, self.first + len(self.windows))

    @property
    def count(self) -> int:
        """Number of rows, with the whole image."""
        return len(self.windows) + (self.whole is not None and self.whole < self.first)

    @cached_property
    def places(self) -> slice | Tensor:
        """The windows: a slice if they are consecutive, else (n,) int64 on the device."""
        if not self.windows or self.windows[-1] - self.windows[0] == len(self.windows) - 1:
            return slice(self.windows[0], self.windows[-1] + 1) if self.windows else slice(0, 0)
        return upload(torch.tensor(self.windows), self.work.source.device)


def batches(works: Iterable[Work], buffer: Tensor) -> Iterator[tuple[Tensor, list[Segment]]]:
    """Fill batches with windows of the first image that has some left or, if none has, of the next image.

    Which windows come next may have to be read from the device. The read waits until the following batch has been
    launched, so that the device has work meanwhile.

    Parameters
    ----------
    works : iterable of Work
        The next one is taken when it is needed.
    buffer : Tensor, (batch size, 3, h, w)

    Yields
    ------
    (Tensor, list of Segment)
        The filled part of the buffer. Call `Work.done` for each segment before taking the next batch.
    """
    works = iter(works)
    active: list[Work] = []
    asked: deque[Work] = deque()  # images that have asked which windows come next, in the order of asking
    segments: list[Segment] = []
    filled = 0
    while True:
        work = next((one for one in active if one.ready), None)
        if work is None and (work := next(works, None)) is not None:
            active.append(work)
        if work is None and asked:
            _answer(asked, len(asked))
            continue
        if work is not None:
            segment = _fill(work, buffer, filled)
            segments.append(segment)
            filled += segment.count
        if filled == len(buffer) or (work is None and filled):
            yield buffer[:filled], segments
            before = len(asked)
            asked.extend(segment.work for segment in segments if segment.work.asks)
            _answer(asked, len(asked) if buffer.device.type == "cpu" else before)
            segments, filled = [], 0
            active = [one for one in active if not one.scored]
        elif work is None:
            return


def _answer(asked: deque[Work], count: int) -> None:
    """Let the first so many images read their answers, the last one first: when it has arrived, so have the others."""
    for work in reversed([asked.popleft() for _ in range(count)]):
        work.answer()


def _fill(work: Work, buffer: Tensor, filled: int) -> Segment:
    with_whole = work.wants_whole
    windows, row = [], filled
    for run, own in work.take(len(buffer) - filled):
        buffer[row : row + len(run)].copy_(run)
        row += len(run)
        windows += own
    if with_whole:
        return Segment(work, filled + 1, windows, filled)
    return Segment(work, filled, windows, filled if work.whole_is_patch and windows[0] == 0 else None)
