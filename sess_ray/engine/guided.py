"""Which windows to score where not all are: those at which the map so far is brightest.

The coarse scales are scored whole. What they show, fused in low resolution, says where a finer scale is worth a look;
what is found there sharpens the map for the scale after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sess_ray.engine.fusion import min_max, over, scale_matrices, summed
from sess_ray.windows import Plan, Scale

if TYPE_CHECKING:
    from sess_ray.engine.batches import Work

SHORT_SIDE = 64  # pixels of the map that guides; windows are far larger than what it loses
MOST_SIDES = 8  # its long side over its short one, whatever the image's


def num_windows(scale: Scale, share: float) -> int:
    """Return how many windows of a fine scale are scored, at least one."""
    return max(1, ceil(share * scale.num_windows - 1e-9))  # 0.3 * 10 is more than 3 in floating point


def least_scored(plan: Plan, whole_scales: int, share: float) -> int:
    """Return how many windows of a plan are scored for one target."""
    return sum(
        scale.num_windows if number < whole_scales else num_windows(scale, share)
        for number, scale in enumerate(plan.scales)
    )


def all_windows(work: Work) -> Iterator[list[int]]:
    """Yield one turn: all windows."""
    yield list(range(work.plan.num_patches))


def guided_windows(work: Work, whole_scales: int, share: float) -> Iterator[list[int]]:
    """Yield the windows to score, turn by turn. What is chosen for a target does not depend on the others."""
    scales = work.plan.slices()
    yield list(range(scales[:whole_scales][-1].stop))
    guides = [Guide(work.plan) for _ in work.targets]
    for number, scale in enumerate(scales):
        if number >= whole_scales:
            for slot, guide in enumerate(guides):
                work.choose(slot, [scale.start + place for place in guide.best(number, share)])
            yield (work.chosen[:, scale].any(0).nonzero()[:, 0] + scale.start).tolist()
        for slot, guide in enumerate(guides):
            chosen = work.chosen[slot, scale]
            where = chosen.to(work.source.device)
            guide.add(number, work.guides[slot][scale][where], work.scores[slot, scale][where], chosen)


class Guide:
    """The map so far of one target in one image.

    Parameters
    ----------
    plan : Plan
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.low = _low(plan)
        self._total = self._coverage = torch.zeros(())

    def add(self, number: int, maps: Tensor, scores: Tensor, scored: Tensor) -> None:
        """Add what the scored windows of a scale say.

        Parameters
        ----------
        number : int
            The scale's number.
        maps : Tensor, (n, u, v)
            Maps of the scored windows, in the order of the plan.
        scores : Tensor, (n,)
            Class scores of these windows, their weights.
        scored : Tensor, (windows of the scale,) bool
            The others say "nothing here".
        """
        matrices = scale_matrices(self.low, *maps.shape[1:], maps.dtype, maps.device)[number]
        total, coverage = summed(min_max(maps, self.plan.window) * scores.view(-1, 1, 1), scored, *matrices)
        self._total = self._total + total
        self._coverage = self._coverage + coverage

    def best(self, number: int, share: float) -> list[int]:
        """Return the places of the windows of a scale in which the map's mean is highest; of equal ones the first."""
        scale = self.plan.scales[number]
        seen = over(self._total, self._coverage)
        down = _means(self.low.height, scale.height, scale.ys, self.plan.window).to(seen)
        across = _means(self.low.width, scale.width, scale.xs, self.plan.window).to(seen)
        order = (down @ seen @ across.T).flatten().argsort(descending=True, stable=True)
        return sorted(order[: num_windows(scale, share)].tolist())


def _low(plan: Plan) -> Plan:
    """Return the plan of the same image, shown smaller."""
    short = min(plan.height, plan.width)
    height, width = (
        min(round(SHORT_SIDE * side / short), SHORT_SIDE * MOST_SIDES) for side in (plan.height, plan.width)
    )
    return replace(plan, height=height, width=width)


@lru_cache(maxsize=1024)
def _means(length: int, scaled: int, starts: tuple[int, ...], window: int) -> Tensor:
    """Return how much each of `length` pixels counts in each window's mean, (windows, length), along one axis."""
    edges = torch.arange(length + 1, dtype=torch.float64) * (scaled / length)
    begins = torch.tensor(starts, dtype=torch.float64)[:, None]
    shared = (torch.minimum(edges[1:], begins + window) - torch.maximum(edges[:-1], begins)).clamp_(min=0)
    return (shared / shared.sum(1, keepdim=True)).float()
