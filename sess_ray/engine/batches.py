"""Images on their way through the scoring pass, and whose windows fill the next batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from sess_ray.engine.cutting import Source, cut, resized
from sess_ray.windows import Plan

WHOLE = -1  # in place of a window's number: the whole image, resized


@dataclass
class Work:
    """An image on its way.

    Its windows are scored in turns: which are worth it may depend on what the turns before have shown. The first turn
    begins with the whole image.

    Attributes
    ----------
    index : int
        Of the image.
    whole_is_patch : bool
        The first window of the plan is the whole image.
    spec : str or list of tuple of int
        What to explain: ``"topK"``, or alternatives for each target.
    turns : iterator of list of int
        Windows to score, ascending; asked for the next ones when those before are scored.
    targets : list of int
    probabilities : Tensor, (classes,)
        Of the whole image.
    scores : Tensor, (targets, P)
        Probability of each target in each window; 0 where it is not scored.
    chosen : Tensor, (targets, P) bool, on the CPU
        The windows that are scored for a target's own sake.
    layer : dict
        What is remembered of the layer, by place in targets and window.
    maps, guides : dict
        Maps by place in targets: the method's, of all windows (family T) or of the kept ones, and those that guide.
    kept : list of Tensor
        What the pre-filter keeps of each target's windows.
    missing : int
        Maps of kept windows that are not made yet.
    """

    index: int
    source: Source
    plan: Plan
    whole_is_patch: bool
    spec: str | list[tuple[int, ...]]
    turns: Iterator[list[int]] = field(default_factory=lambda: iter([]))
    targets: list[int] = field(default_factory=list)
    probabilities: Tensor = field(default_factory=lambda: torch.empty(0))
    scores: Tensor = field(default_factory=lambda: torch.empty(0))
    chosen: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    layer: dict[tuple[int, int], tuple[Tensor, ...]] = field(default_factory=dict)
    maps: dict[int, Tensor] = field(default_factory=dict)
    guides: dict[int, Tensor] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)
    missing: int = 0
    turn: list[int] = field(default_factory=list)
    scored: bool = False
    _patches: Iterator[tuple[int, Tensor]] = field(default_factory=lambda: iter([]))
    _left: int = 0  # rows of this turn that are in no batch yet
    _waiting: int = 0  # and that are not scored yet

    def begin(self) -> None:
        """Begin the first turn."""
        self._begin(with_whole=not self.whole_is_patch)

    def _begin(self, *, with_whole: bool = False) -> None:
        self.turn = next(self.turns, [])
        self.scored = not self.turn
        self._left = self._waiting = len(self.turn) + with_whole
        # When all is scored nothing is left that refers back to this: its memory is free as soon as it is let go.
        self._patches = iter(()) if self.scored else self._cut(with_whole=with_whole)

    def _cut(self, *, with_whole: bool) -> Iterator[tuple[int, Tensor]]:
        if with_whole:
            side = self.plan.window
            yield WHOLE, resized(self.source, side, side)(0, side).permute(2, 0, 1)
        wanted = [False] * self.plan.num_patches
        for window in self.turn:
            wanted[window] = True
        yield from zip(self.turn, cut(self.source, self.plan, wanted), strict=True)

    @property
    def ready(self) -> bool:
        """Whether it has windows that are in no batch yet."""
        return self._left > 0

    def take(self, most: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the next windows, at most so many: their numbers, `WHOLE` in front, and (3, side, side) pixels."""
        count = min(most, self._left)
        self._left -= count
        return islice(self._patches, count)

    def done(self, count: int) -> None:
        """Take note that so many rows are scored; when the turn has ended, begin the next."""
        self._waiting -= count
        if not self._waiting:
            self._begin()


@dataclass(frozen=True)
class Segment:
    """Rows of a batch that are of one image.

    Attributes
    ----------
    first : int
        The first row that is a window.
    windows : list of int
        Which these rows are, ascending.
    whole : int or None
        The row that is the whole image.
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
    def places(self) -> Tensor:
        """The windows, (n,) int64, on the device."""
        return torch.tensor(self.windows, dtype=torch.int64).to(self.work.source.device, non_blocking=True)


def batches(works: Iterable[Work], buffer: Tensor) -> Iterator[tuple[Tensor, list[Segment]]]:
    """Fill batches: with windows of the first image that has some; where none has, with the next image's.

    Parameters
    ----------
    works : iterable of Work
        Asked for the next one when it is needed.
    buffer : Tensor, (batch size, 3, side, side)

    Yields
    ------
    (Tensor, list of Segment)
        The buffer, as far as it is filled. Call `Work.done` for each segment before the next.
    """
    works = iter(works)
    active: list[Work] = []
    segments: list[Segment] = []
    filled = 0
    while True:
        work = next((one for one in active if one.ready), None)
        if work is None and (work := next(works, None)) is not None:
            work.begin()
            active.append(work)
        if work is not None:
            segment = _fill(work, buffer, filled)
            segments.append(segment)
            filled += segment.count
        if filled == len(buffer) or (work is None and filled):
            yield buffer[:filled], segments
            segments, filled = [], 0
            active = [one for one in active if not one.scored]
        elif work is None:
            return


def _fill(work: Work, buffer: Tensor, filled: int) -> Segment:
    windows = []
    for row, (window, patch) in enumerate(work.take(len(buffer) - filled), filled):
        buffer[row].copy_(patch)
        windows.append(window)
    if windows[0] == WHOLE:
        return Segment(work, filled + 1, windows[1:], filled)
    return Segment(work, filled, windows, filled if work.whole_is_patch and windows[0] == 0 else None)
