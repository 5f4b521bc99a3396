"""Maps of the kept windows, by methods that need the patches themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sess_ray.engine.finishing import one_batch_later
from sess_ray.engine.scoring import buffer, checked_maps, of_layer
from sess_ray.engine.settings import Settings
from sess_ray.engine.work import Work
from sess_ray.models import Model
from sess_ray.transfer import Download, upload


@dataclass(frozen=True)
class Row:
    """A kept window in a batch of patches: its image, its target, and its position among the target's kept windows."""

    work: Work
    slot: int
    window: int
    place: int


class Extraction:
    """Makes maps of kept windows, with many images in one batch.

    Parameters
    ----------
    model : Model
        Prepared.
    settings : Settings
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self.settings = settings

    def __call__(self, works: Iterator[Work]) -> Iterator[Work]:
        """Yield images in their order, as soon as the maps of all their kept windows have been launched."""
        patches = buffer(self.settings)
        rows: list[Row] = []
        waiting: deque[Work] = deque()
        for work, kept in one_batch_later(works, lambda work: Download(work.kept)):
            waiting.append(work)
            work.expect()
            own = _rows(work, kept.read())
            for run in work.patches.of([row.window for row in own]):
                for patch in run.split(_sizes(len(run), len(rows), len(patches))):
                    patches[len(rows) : len(rows) + len(patch)].copy_(patch)
                    rows += own[: len(patch)]
                    own = own[len(patch) :]
                    if len(rows) == len(patches):
                        self._extract(patches, rows)
                        rows = []
            while waiting and waiting[0].whole:
                yield waiting.popleft()
        if rows:
            self._extract(patches[: len(rows)], rows)
        yield from waiting

    def _extract(self, patches: Tensor, rows: list[Row]) -> None:
        settings, method = self.settings, self.settings.method
        targets = torch.stack([row.work.targets[row.slot] for row in rows])
        offers: dict[str, object] = {"seed": settings.seed, "batch_size": settings.batch_size}
        if "scores" in method.given:
            offers["scores"] = torch.stack([row.work.scores[row.slot, row.window] for row in rows])
        if method.looks_at:
            offers |= self._layer(patches, targets, rows)
        if "same_as" in method.given:
            offers["same_as"] = upload(_same_as(rows), settings.device)
        if "generators" in method.given:
            offers["generators"] = [self._generator(row.window) for row in rows]
        given = {name: offers[name] for name in method.given}
        found = method.function(self.model, patches, targets, **given, **settings.method_options)
        maps = checked_maps(method, found, len(rows)).detach().float()
        where = upload(torch.tensor([(row.slot, row.place) for row in rows]).T.contiguous(), settings.device)
        first = 0
        while first < len(rows):
            work = rows[first].work
            count = sum(row.work is work for row in rows[first:])
            part = slice(first, first + count)
            work.receive(where[0, part], where[1, part], maps[part])
            first += count

    def _layer(self, patches: Tensor, targets: Tensor, rows: list[Row]) -> dict[str, Tensor]:
        """Return what the method asks for from the layer: kept from the scoring pass, or computed again."""
        method = self.settings.method
        kept = [row.work.layer.take(row.slot, row.window) for row in rows]
        if all(values is not None for values in kept):
            return dict(zip(method.looks_at, map(torch.stack, zip(*kept, strict=True)), strict=True))  # type: ignore[arg-type]
        tap = self.model.tap(patches, gradients=method.pulls)
        return of_layer(tap, targets, slice(None), method.looks_at)

    def _generator(self, window: int) -> torch.Generator:
        """Return the generator of a patch's random numbers: the same in any batch, on any actor."""
        [state] = np.random.SeedSequence([self.settings.seed, window]).generate_state(1, np.uint64)
        return torch.Generator(self.settings.device).manual_seed(int(state >> 1))


def _rows(work: Work, kept: Tensor) -> list[Row]:
    """Return every kept window once for each target that keeps it, ascending."""
    found = [
        (window, slot, place) for slot, windows in enumerate(kept.tolist()) for place, window in enumerate(windows)
    ]
    return [Row(work, slot, window, place) for window, slot, place in sorted(found)]


def _sizes(count: int, filled: int, most: int) -> list[int]:
    """Return how so many patches are split among batches of at most so many, of which the first is filled so far."""
    sizes = []
    while count:
        sizes.append(min(count, most - filled))
        count, filled = count - sizes[-1], 0
    return sizes


def _same_as(rows: Sequence[Row]) -> Tensor:
    """Return for each row the first that holds the same window of the same image."""
    first: dict[tuple[int, int], int] = {}
    return torch.tensor([first.setdefault((row.work.index, row.window), number) for number, row in enumerate(rows)])
