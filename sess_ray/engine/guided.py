"""Guided windows: of fine scales, only those windows are scored where the map so far is brightest.

All windows of the coarse scales are scored. Their maps, fused in low resolution, say where to look in the next scale;
what is found there sharpens the map for the scale after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor

from sess_ray.engine.placing import Placement, placement
from sess_ray.transfer import Latest, upload
from sess_ray.windows import Plan, Scale

SHORT_SIDE = 64  # pixels of the guiding map; windows are far larger than the detail that it loses
LOOKS_BYTES = 1 << 26
MOST_SIDES = 8  # its long side over its short side, at most, whatever the image's


def num_windows(scale: Scale, share: float) -> int:
    """Return how many windows of a fine scale are scored, at least one."""
    return max(1, ceil(share * scale.num_windows - 1e-9))  # 0.3 * 10 is more than 3 in floating point


def least_scored(plan: Plan, whole_scales: int, share: float) -> int:
    """Return how many windows of a plan are scored for one target."""
    return sum(
        scale.num_windows if number < whole_scales else num_windows(scale, share)
        for number, scale in enumerate(plan.scales)
    )


@dataclass(frozen=True)
class Looks:
    """What a guide needs to know about a plan, in low resolution, on the device.

    Attributes
    ----------
    placement : Placement
        Where the cells of the windows' maps lie in the low-resolution map.
    covered : Tensor, (scales, h, w)
        How many windows of the scales up to this one cover each pixel, at least 1.
    down, across : list of Tensor
        For each scale the weight of each pixel in each window's mean along the axes, (windows, h) and (w, windows).
    """

    placement: Placement
    covered: Tensor
    down: list[Tensor]
    across: list[Tensor]

    @property
    def nbytes(self) -> int:
        return self.placement.nbytes + self.covered.nbytes + sum(one.nbytes for one in (*self.down, *self.across))


def _looks(plan: Plan, u: int, v: int, dtype: torch.dtype, device: torch.device) -> Looks:
    low = _low(plan)
    at = placement(low, u, v, dtype, device)
    covered = (at.covered_rows.T[:, :, None] * at.covered_columns[:, None]).cumsum(0)
    axes = (
        [_means(low.height, scale.height, scale.ys, plan.sides[0]) for scale in plan.scales],
        [_means(low.width, scale.width, scale.xs, plan.sides[1]) for scale in plan.scales],
    )
    down, across = (upload(torch.cat(means).to(dtype), device).split([len(own) for own in means]) for means in axes)
    return Looks(at, covered.masked_fill_(covered == 0, 1), list(down), [means.T for means in across])


looks = Latest(_looks, LOOKS_BYTES)


class Guide:
    """Chooses which windows of an image come next, from the map so far of each of its targets.

    Parameters
    ----------
    plan : Plan
    whole_scales : int
        Number of coarse scales of which all windows are scored.
    share : float
        Share of each finer scale's windows that is scored for each target.
    """

    def __init__(self, plan: Plan, whole_scales: int, share: float) -> None:
        self.plan = plan
        self.share = share
        self.scales = plan.slices()
        self._number = min(whole_scales, len(self.scales))  # scales that are done when the next question is asked
        self.first = list(range(self.scales[self._number - 1].stop))
        self._own: Tensor | None = None  # (T, n), the windows that were last chosen for each target
        self._total: Tensor | None = None

    def ask(self, maps: Tensor, scores: Tensor) -> Tensor | None:
        """Take the results of the windows chosen last; return the next windows, or None if no scale is left.

        Parameters
        ----------
        maps : Tensor, (T, P, u, v)
            Grad-CAM maps of the scored windows, each from 0 to 1.
        scores : Tensor, (T, P)
            Class scores of these windows, their weights.

        Returns
        -------
        Tensor, (T, n) int64
            For each target the windows of the next scale in which the map's mean is highest, ascending; the first ones
            if means are equal. The choice for one target does not depend on the others.
        """
        if self._number == len(self.scales):
            return None
        if self._own is None:
            seen, weights = maps[:, : len(self.first)], scores[:, : len(self.first)]
            own = torch.arange(len(self.first), device=maps.device).expand(len(maps), -1)
            self._slots = torch.arange(len(maps), device=maps.device)[:, None]
        else:
            own = self._own
            seen, weights = maps[self._slots, own], scores.gather(1, own)
        at = looks(self.plan, *maps.shape[2:], maps.dtype, maps.device)
        found = at.placement.summed(seen * weights[..., None, None], own)
        self._total = found if self._total is None else self._total + found
        number, self._number = self._number, self._number + 1
        shown = self._total / at.covered[number - 1]
        means = (at.down[number] @ shown @ at.across[number]).flatten(1)
        count = num_windows(self.plan.scales[number], self.share)
        order = means.argsort(dim=1, descending=True, stable=True)[:, :count]
        self._own = order.sort(1).values + self.scales[number].start
        return self._own


def _low(plan: Plan) -> Plan:
    """Return the plan of the same image in low resolution."""
    short = min(plan.height, plan.width)
    height, width = (
        min(round(SHORT_SIDE * side / short), SHORT_SIDE * MOST_SIDES) for side in (plan.height, plan.width)
    )
    return replace(plan, height=height, width=width)


@lru_cache(maxsize=1024)
def _means(length: int, scaled: int, starts: tuple[int, ...], window: int) -> Tensor:
    """Return the weights of `length` pixels in each window's mean, (windows, length), along one axis."""
    edges = torch.arange(length + 1, dtype=torch.float64) * (scaled / length)
    begins = torch.tensor(starts, dtype=torch.float64)[:, None]
    shared = (torch.minimum(edges[1:], begins + window) - torch.maximum(edges[:-1], begins)).clamp_(min=0)
    return (shared / shared.sum(1, keepdim=True)).float()
