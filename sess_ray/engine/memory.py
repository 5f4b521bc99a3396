"""What is stored of an image's scoring pass, for methods that need the kept windows again."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sess_ray.engine.cutting import Source, runs
from sess_ray.transfer import upload
from sess_ray.windows import Plan


class LayerMemory:
    """The layer's values for some windows, by target and window."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def keep(
        self, slot: int, windows: list[int], values: tuple[Tensor, ...], scores: Tensor, *, few: int | None
    ) -> None:
        """Keep the layer's values for some windows; with `few`, copies for at most so many windows, the best so far.

        Parameters
        ----------
        slot : int
            The target's position.
        windows : list of int, n of them
        values : tuple of Tensor, (n, ...) each
        scores : Tensor, (P,)
            The target's probability in each window.
        few : int or None
        """
        for window, *own in zip(windows, *values, strict=True):
            self._values[slot, window] = tuple(own) if few is None else tuple(value.clone() for value in own)
        if few is not None:
            known = scores.tolist()
            ranked = sorted((known[window], window) for at, window in self._values if at == slot)
            for _, window in ranked[:-few]:
                del self._values[slot, window]

    def take(self, slot: int, window: int) -> tuple[Tensor, ...] | None:
        """Return what was kept for a window, once; None if nothing was."""
        return self._values.pop((slot, window), None)


class PatchMemory:
    """Patches of an image's windows: kept since they were scored, or cut again.

    Parameters
    ----------
    source : Source
    plan : Plan
    """

    def __init__(self, source: Source, plan: Plan) -> None:
        self._source = source
        self._plan = plan
        self._held: Tensor | None = None  # of all windows

    def hold(self, windows: slice | Tensor, patches: Tensor) -> None:
        """Keep patches of some windows, (n, 3, h, w), so that those need not be cut again."""
        if self._held is None:
            shape = self._plan.num_patches, *patches.shape[1:]
            self._held = patches.new_empty(shape).contiguous(memory_format=torch.channels_last)
        self._held[windows] = patches

    def free(self) -> None:
        """Free the memory of the patches."""
        self._held = None

    def of(self, windows: list[int]) -> Iterator[Tensor]:
        """Yield the patches of windows, given ascending and possibly repeated, as views (n, 3, h, w)."""
        if self._held is not None:
            yield self._held[upload(torch.tensor(windows), self._source.device)]
            return
        unlike = list(dict.fromkeys(windows))
        counts = torch.tensor(windows).unique_consecutive(return_counts=True)[1]
        first = 0
        for run in runs(self._source, self._plan, unlike):
            times = counts[first : first + len(run)]
            first += len(run)
            if len(run) == 1:
                yield run.expand(int(times[0]), -1, -1, -1)
            else:
                yield run[upload(torch.arange(len(run)).repeat_interleave(times), run.device)]
