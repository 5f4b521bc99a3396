"""An image in progress: what is known about it so far, and which of its windows come next."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sess_ray.engine.cutting import Source, runs, whole
from sess_ray.engine.fusion import best, num_kept
from sess_ray.engine.guided import Guide
from sess_ray.engine.memory import LayerMemory, PatchMemory
from sess_ray.engine.targets import Goal
from sess_ray.transfer import Download, upload
from sess_ray.windows import Plan


class Work:
    """The state of an image in progress; scoring, extraction and finishing read and write it.

    Its windows are scored in turns, because the choice of windows may depend on the turns before. The first turn begins
    with the whole image.

    Parameters
    ----------
    index : int
        The image's number.
    source : Source
    plan : Plan
    goal : Goal
        What to explain.
    ratio : float
        Share of the windows that the pre-filter drops.
    guide : Guide, optional
        Chooses windows. By default all are scored.
    whole_is_patch : bool
        Whether the first window of the plan is the whole image.

    Attributes
    ----------
    targets : Tensor, (T,) int64
        Classes to explain; set by `meet`.
    probabilities : Tensor, (classes + groups,)
        The model's probabilities for the whole image.
    scores : Tensor, (T, P)
        Probability of each target in each window; 0 where it is not scored.
    chosen : Tensor, (T, P) bool, on the CPU
        The windows that were chosen for each target.
    own_scores : Tensor, (T, P)
        The same as `scores`, but 0 also where a window was chosen only for another target; set by `filter`.
    kept : Tensor, (T, K) int64
        The windows that the pre-filter keeps for each target, ascending; set by `filter`.
    maps : Tensor, (T, K, u, v)
        The method's maps of the kept windows.
    batch : int
        The batch in which its last window was scored.
    patches : PatchMemory
    layer : LayerMemory
    """

    def __init__(
        self,
        index: int,
        source: Source,
        plan: Plan,
        goal: Goal,
        ratio: float,
        *,
        guide: Guide | None = None,
        whole_is_patch: bool = False,
    ) -> None:
        self.index = index
        self.source = source
        self.plan = plan
        self.goal = goal
        self.ratio = ratio
        self.whole_is_patch = whole_is_patch
        self.patches = PatchMemory(source, plan)
        self.layer = LayerMemory()
        self.batch = 0
        self.chosen = torch.zeros(goal.count, plan.num_patches, dtype=torch.bool)
        self.targets = self.probabilities = self.scores = self.own_scores = self.kept = self.maps = torch.empty(0)
        self.num_kept = num_kept(plan.num_patches, ratio)
        self._guide = guide
        self._answer: Download | None = None
        self._all: Tensor | None = None  # maps of all windows, (T, P, u, v), of methods of family T
        self._guiding: Tensor | None = None  # those that guide
        self._missing = 0  # maps of kept windows that are not made yet
        self.wants_whole = not whole_is_patch
        self._turn: list[int] = []
        self._begin(guide.first if guide else list(range(plan.num_patches)))
        self.chosen[:, self._turn] = True

    # -- which windows come next

    def _begin(self, windows: list[int]) -> None:
        self._turn = windows
        self._left = len(windows)  # windows of this turn that are in no batch yet
        self._waiting = len(windows) + self.wants_whole  # rows that are not scored yet
        self._rest: Tensor | None = None  # of a run that did not fit into the last batch
        self._runs = runs(self.source, self.plan, windows)

    @property
    def scored(self) -> bool:
        """Whether all windows that are to be scored have been scored."""
        return not self._turn

    @property
    def ready(self) -> bool:
        """Whether it has windows that are not yet in a batch."""
        return self._left > 0

    def take(self, most: int) -> Iterator[tuple[Tensor, list[int]]]:
        """Yield the next rows, at most so many, as (n, 3, h, w) with their windows; first the whole image."""
        if self.wants_whole:
            self.wants_whole = False
            most -= 1
            yield whole(self.source, self.plan), []
        while most and self._left:
            run = next(self._runs) if self._rest is None else self._rest
            run, self._rest = run[:most], run[most:] if len(run) > most else None
            first = len(self._turn) - self._left
            self._left -= len(run)
            most -= len(run)
            yield run, self._turn[first : first + len(run)]

    @property
    def asks(self) -> bool:
        """Whether `answer` has to be called to know which windows come next."""
        return self._answer is not None

    def done(self, count: int, batch: int) -> None:
        """Note that so many rows were in this batch and that their scores have been launched."""
        self._waiting -= count
        if self._waiting:
            return
        self.batch = batch
        self._runs = iter(())  # it refers back to this object, whose memory would otherwise not be freed at once
        if self._guide and self._guiding is not None:
            found = self._guide.ask(self._guiding, self.scores)
            if found is not None:
                self._answer = Download(found)
                return
        self._turn = []

    def answer(self) -> None:
        """Read which windows come next, and start with them."""
        assert self._answer is not None
        for slot, windows in enumerate(self._answer.read().tolist()):
            self.chosen[slot, windows] = True
        before = self._turn[-1] + 1
        self._answer = None
        self._begin((self.chosen[:, before:].any(0).nonzero()[:, 0] + before).tolist())

    # -- what is learned of them

    def meet(self, probabilities: Tensor, num_classes: int) -> None:
        """Take the model's probabilities for the whole image, (classes + groups,), and decide what to explain."""
        self._waiting -= self.wants_whole  # known before the first batch, so the whole image need not be scored
        self.wants_whole = False
        self.probabilities = probabilities
        self.targets = self.goal.among(probabilities, num_classes)
        self.scores = probabilities.new_zeros(self.goal.count, self.plan.num_patches)

    def score(self, windows: slice | Tensor, scores: Tensor) -> None:
        """Take the scores of some windows, (n, T)."""
        self.scores[:, windows] = scores.T

    def place_maps(self, slot: int, windows: slice | Tensor, maps: Tensor) -> None:
        """Take maps of some windows for a target, (n, u, v)."""
        if self._all is None:
            self._all = self._room(maps)
        self._all[slot, windows] = maps

    def place_guides(self, slot: int, windows: slice | Tensor, maps: Tensor) -> None:
        """Take guiding maps, like `place_maps`, each from 0 to 1."""
        if self._guiding is None:
            self._guiding = self._room(maps)
        self._guiding[slot, windows] = maps

    def _room(self, maps: Tensor) -> Tensor:
        return maps.new_zeros(*self.chosen.shape, *maps.shape[1:])

    def filter(self) -> None:
        """Decide which of the windows scored for each target the pre-filter keeps."""
        if self._guide:
            chosen = upload(self.chosen, self.source.device)
            ranked, self.own_scores = self.scores.where(chosen, -torch.inf), self.scores.where(chosen, 0)
            self.num_kept = min(self.num_kept, int(self.chosen.sum(1).min()))
        else:
            ranked = self.own_scores = self.scores
        self.kept = best(ranked, self.num_kept)
        if self._all is not None:
            slots = torch.arange(len(self.kept), device=self.kept.device)[:, None]
            self.maps = self._all[slots, self.kept]
            self._all = None

    # -- what a method makes of the kept ones

    @property
    def whole(self) -> bool:
        """Whether the maps of all kept windows are made."""
        return not self._missing

    def expect(self) -> None:
        """Start to wait for a map of each kept window."""
        self._missing = self.kept.numel()

    def receive(self, slots: Tensor, places: Tensor, maps: Tensor) -> None:
        """Take maps of kept windows, (n, u, v), each for a target and a position among its kept windows."""
        if not len(self.maps):
            self.maps = maps.new_empty(*self.kept.shape, *maps.shape[1:])
        self.maps[slots, places] = maps
        self._missing -= len(maps)
        if not self._missing:
            self.patches.free()
