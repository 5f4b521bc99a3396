"""Images on their way through the scoring pass, and whose windows fill the next batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from sess_ray.engine.cutting import Source, cut, resized
from sess_ray.engine.fusion import keep
from sess_ray.engine.targets import Targets
from sess_ray.windows import Plan

WHOLE = -1  # in place of a window's number: the whole image, resized


class Work:
    """An image on its way: what is known of it, and which of its windows come next. Others ask and tell; it keeps.

    Its windows are scored in turns: which are worth it may depend on what the turns before have shown. The first turn
    begins with the whole image.

    Parameters
    ----------
    index : int
        The image's number.
    source : Source
    plan : Plan
    spec : str or list of tuple of int
        What to explain: ``"topK"``, or alternatives for each target.
    whole_is_patch : bool
        The first window of the plan is the whole image.
    turns : callable
        This work to an iterator of windows to score, ascending; asked for the next ones when those before are scored.

    Attributes
    ----------
    targets : list of int
        Classes to explain; none before `meet`.
    probabilities : Tensor, (classes + groups,)
        What the model says of the whole image.
    scores : Tensor, (targets, P)
        Probability of each target in each window; 0 where it is not scored.
    chosen : Tensor, (targets, P) bool, on the CPU
        The windows that are scored for a target's own sake.
    kept : Tensor, (targets, P) bool
        What the pre-filter keeps of each target's windows; from `filter` on.
    maps, guides : dict
        Maps by place in targets: the method's, of all windows (family T) or of the kept ones, and those that guide.
    """

    def __init__(
        self,
        index: int,
        source: Source,
        plan: Plan,
        spec: Targets,
        *,
        whole_is_patch: bool,
        turns: Callable[[Work], Iterator[list[int]]],
    ) -> None:
        self.index = index
        self.source = source
        self.plan = plan
        self.spec = spec
        self.whole_is_patch = whole_is_patch
        self.targets: list[int] = []
        self.probabilities = torch.empty(0)
        self.scores = torch.empty(0)
        self.chosen = torch.empty(0, dtype=torch.bool)
        self.kept = torch.empty(0, dtype=torch.bool)
        self.maps: dict[int, Tensor] = {}
        self.guides: dict[int, Tensor] = {}
        self._layer: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        self._missing = 0  # maps of kept windows that are not made yet
        self._turns = turns(self)
        self._turn: list[int] = []
        self._patches: Iterator[tuple[int, Tensor]] = iter(())
        self._left = 0  # rows of this turn that are in no batch yet
        self._waiting = 0  # and that are not scored yet

    # -- which windows come next

    def begin(self) -> None:
        """Begin the first turn."""
        self._begin(with_whole=not self.whole_is_patch)

    def _begin(self, *, with_whole: bool = False) -> None:
        self._turn = next(self._turns, [])
        self._left = self._waiting = len(self._turn) + with_whole
        # When all is scored nothing is left that refers back to this: its memory is free as soon as it is let go.
        self._patches = self._cut(with_whole=with_whole) if self._turn else iter(())

    def _cut(self, *, with_whole: bool) -> Iterator[tuple[int, Tensor]]:
        if with_whole:
            side = self.plan.window
            yield WHOLE, resized(self.source, side, side)(0, side).permute(2, 0, 1)
        wanted = [False] * self.plan.num_patches
        for window in self._turn:
            wanted[window] = True
        yield from zip(self._turn, cut(self.source, self.plan, wanted), strict=True)

    @property
    def scored(self) -> bool:
        """Whether all of its windows that are to be scored are."""
        return not self._turn

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

    # -- what is learned of them

    def meet(self, probabilities: Tensor, num_classes: int) -> None:
        """Learn what the model says of the whole image, (classes + groups,), and so what to explain."""
        self.probabilities = probabilities
        if isinstance(self.spec, str):
            self.targets = probabilities[:num_classes].topk(int(self.spec[3:])).indices.tolist()
        else:
            score = probabilities.tolist()
            self.targets = [max(entry, key=score.__getitem__) for entry in self.spec]
        size = len(self.targets), self.plan.num_patches
        self.scores = torch.zeros(size, device=self.source.device)
        self.chosen = torch.zeros(size, dtype=torch.bool)
        self.chosen[:, self._turn] = True

    def choose(self, slot: int, windows: list[int]) -> None:
        """Mark windows that are scored for a target's own sake."""
        self.chosen[slot, windows] = True

    def score(self, slot: int, windows: Tensor, scores: Tensor) -> None:
        """Take the scores of some windows for a target."""
        self.scores[slot, windows] = scores

    def place_maps(self, slot: int, windows: Tensor, maps: Tensor) -> None:
        """Take maps of some windows, (n, u, v), among those of all."""
        self._place(self.maps, slot, windows, maps)

    def place_guides(self, slot: int, windows: Tensor, maps: Tensor) -> None:
        """Take maps that guide, as `place_maps`."""
        self._place(self.guides, slot, windows, maps)

    def _place(self, held: dict[int, Tensor], slot: int, windows: Tensor, maps: Tensor) -> None:
        if slot not in held:
            held[slot] = maps.new_zeros(self.plan.num_patches, *maps.shape[1:])
        held[slot][windows] = maps

    def remember(self, slot: int, windows: Tensor, *values: Tensor, best: int | None = None) -> None:
        """Keep what the layer gives of some windows; of all so far only the `best` by score."""
        for window, *own in zip(windows.tolist(), *values, strict=True):
            self._layer[slot, window] = tuple(value.clone() for value in own)
        if best is not None:
            scores = self.scores[slot].tolist()
            ranked = sorted((scores[window], window) for at, window in self._layer if at == slot)
            for _, window in ranked[:-best]:
                del self._layer[slot, window]

    def recall(self, slot: int, window: int) -> tuple[Tensor, ...] | None:
        """Give back what was kept of the layer, once; None where nothing was."""
        return self._layer.pop((slot, window), None)

    def filter(self, ratio: float) -> None:
        """Decide which windows the pre-filter keeps of those that are scored for each target."""
        marks = self.chosen.to(self.source.device)
        self.kept = torch.stack(
            [keep(scores, ratio, chosen) for scores, chosen in zip(self.scores, marks, strict=True)]
        )

    # -- what a method makes of the kept ones

    @property
    def whole(self) -> bool:
        """Whether the maps of all kept windows are made."""
        return not self._missing

    def expect(self) -> None:
        """Begin to wait for a map of each kept window."""
        self._missing = int(self.kept.sum())

    def receive(self, slot: int, place: int, found: Tensor) -> None:
        """Take the map, (u, v), of the kept window at this place among those of its target."""
        if slot not in self.maps:
            self.maps[slot] = found.new_empty(int(self.kept[slot].sum()), *found.shape)
        self.maps[slot][place] = found
        self._missing -= 1


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
