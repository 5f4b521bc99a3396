"""The scoring pass: batches go through the model; scores, and the layer's values, go to their images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from sess_ray.engine.batches import Segment, batches
from sess_ray.engine.fusion import min_max
from sess_ray.engine.settings import Settings
from sess_ray.engine.work import Work
from sess_ray.errors import SessError
from sess_ray.methods import Method
from sess_ray.methods.cam import gradcam
from sess_ray.methods.registry import LAYER, Scored
from sess_ray.models import Model
from sess_ray.models.model import Tap
from sess_ray.windows import sides

# What an image may keep of its scoring pass for methods that look at the layer, or at the patches; what needs more is
# computed again.
LAYER_BYTES = 1 << 28
PATCH_BYTES = 1 << 29


def buffer(settings: Settings) -> Tensor:
    """Return memory for a batch of patches."""
    shape = settings.batch_size, 3, *sides(settings.window)
    return torch.empty(shape, dtype=settings.dtype, device=settings.device).contiguous(
        memory_format=torch.channels_last
    )


def of_layer(tap: Tap, classes: Tensor, rows: Tensor | slice, names: Sequence[str]) -> dict[str, Tensor]:
    """Return activations, gradients or both of some rows of a batch."""
    return {name: tap.activations[rows] if name == "activations" else tap.gradients(classes, rows) for name in names}


def checked_maps(method: Method, maps: object, count: int) -> Tensor:
    """Return the maps that a method made of so many patches; `SessError` if they are not one for each."""
    if not isinstance(maps, Tensor):
        raise SessError(f"method {method.name} gives {type(maps).__name__}: give maps, a Tensor (N, u, v)")
    if maps.ndim != 3 or len(maps) != count:
        raise SessError(f"method {method.name} gives {tuple(maps.shape)} for {count} patches: give maps (N, u, v)")
    return maps


class Scoring:
    """Scores windows and, for methods of family T, makes their maps.

    Parameters
    ----------
    model : Model
        Prepared.
    settings : Settings
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self.settings = settings
        self.on_cpu = settings.device.type == "cpu"

    def __call__(self, works: Iterator[Work]) -> Iterator[Work]:
        """Yield images in their order, as soon as the scores of their last windows have been launched."""
        waiting: deque[Work] = deque()

        def started() -> Iterator[Work]:
            for work in works:
                waiting.append(work)
                yield work

        for number, (patches, segments) in enumerate(batches(started(), buffer(self.settings))):
            self._score(patches, segments)
            for segment in segments:
                segment.work.done(segment.count, number)
            while waiting and waiting[0].scored:
                work = waiting.popleft()
                work.filter()
                yield work

    def _score(self, patches: Tensor, segments: list[Segment]) -> None:
        """Score a batch, and hand the results to its images."""
        tap = self.model.tap(patches, gradients=self.settings.pulls)
        probabilities = self.model.probabilities(tap.logits)
        for segment in segments:
            if segment.whole is not None:
                segment.work.meet(probabilities[segment.whole], self.model.num_classes)
        slots = max(segment.work.goal.count for segment in segments)
        classes = torch.zeros(len(probabilities), slots, dtype=torch.int64, device=probabilities.device)
        for segment in segments:
            classes[segment.rows, : segment.work.goal.count] = segment.work.targets
        scores = probabilities.gather(1, classes)
        for segment in segments:
            if segment.windows:
                segment.work.score(segment.places, scores[segment.rows, : segment.work.goal.count])
                if self._holds(segment.work):
                    segment.work.patches.hold(segment.places, patches[segment.rows])
        if self.settings.method.looks_at or self.settings.guides:
            maps: Tensor | None = None
            for slot in range(slots):
                active = [one for one in segments if slot < one.work.goal.count and one.windows]
                maps = self._look(tap, classes[:, slot], slot, active, maps)

    def _holds(self, work: Work) -> bool:
        """Whether patches are kept for the method: not on a CPU, where they would take most of an image's memory."""
        settings = self.settings
        if self.on_cpu or settings.method.family == "T":
            return False
        return work.plan.num_patches * 3 * prod(sides(settings.window)) * settings.dtype.itemsize <= PATCH_BYTES

    def _look(self, tap: Tap, classes: Tensor, slot: int, active: list[Segment], maps: Tensor | None) -> Tensor | None:
        """Take the layer's values for windows that may survive the pre-filter, or that guide.

        Methods of family T make their maps from them at once; for other methods they are remembered. If the maps do not
        depend on the target, those of the whole batch are returned, to be given for the next one.
        """
        settings, method = self.settings, self.settings.method
        chosen = [self._promising(segment, slot) for segment in active]
        rows: Tensor | slice = slice(None)
        firsts = [segment.first for segment in active]
        if self.on_cpu and any(own is not None for own in chosen):
            parts = [
                torch.arange(len(segment.windows)) if own is None else own
                for segment, own in zip(active, chosen, strict=True)
            ]
            rows = torch.cat([segment.first + own for segment, own in zip(active, parts, strict=True)])
            firsts = [0, *torch.tensor([len(own) for own in parts]).cumsum(0).tolist()]
            if not len(rows):
                return None
        names = LAYER if settings.guides else method.looks_at
        values = of_layer(tap, classes, rows, names)
        guides = None
        if settings.guides:
            guides = min_max(gradcam(*values.values()), settings.window)
        layer = [values[name] for name in method.looks_at]
        if method.family == "T" and (maps is None or not isinstance(rows, slice)):
            maps = self._maps(tap, layer, classes[rows], rows)
        for segment, own, first in zip(active, chosen, firsts, strict=False):
            windows = segment.windows if own is None else [segment.windows[place] for place in own.tolist()]
            if not windows:
                continue
            part = slice(first, first + len(windows))
            places = segment.places if own is None else torch.tensor(windows)
            if guides is not None:
                segment.work.place_guides(slot, places, guides[part])
            if maps is not None:
                segment.work.place_maps(slot, places, maps[part])
            elif layer:
                self._remember(segment.work, slot, windows, tuple(value[part] for value in layer))
        return maps if isinstance(rows, slice) and not method.pulls else None

    def _maps(self, tap: Tap, layer: list[Tensor], targets: Tensor, rows: Tensor | slice) -> Tensor:
        """Return a family T method's maps of some rows, from the layer's values and whatever else it asks for."""
        method, offers = self.settings.method, {}
        if "scored" in method.given:
            offers["scored"] = Scored(self.model, targets, tap.logits[rows], lambda weights: tap.pull(weights, rows))
        return checked_maps(method, method.function(*layer, **offers, **self.settings.method_options), len(targets))

    def _remember(self, work: Work, slot: int, windows: list[int], values: tuple[Tensor, ...]) -> None:
        few = work.num_kept if self.on_cpu else None
        held = few or work.plan.num_patches
        if held * work.goal.count * sum(value[0].nbytes for value in values) <= LAYER_BYTES:
            work.layer.keep(slot, windows, values, work.scores[slot], few=few)

    def _promising(self, segment: Segment, slot: int) -> Tensor | None:
        """Return which of a segment's windows are among the best so far, as many as the pre-filter keeps; None for all.

        On a GPU all of them, because waiting for the scores would cost more than the maps. With guided windows, all
        that were chosen for the target.
        """
        work, count = segment.work, len(segment.windows)
        if not self.on_cpu:
            return None
        if self.settings.guides:
            return work.chosen[slot, segment.windows].nonzero()[:, 0]
        if not self.settings.ratio:
            return None
        seen = work.scores[slot, : segment.windows[-1] + 1]
        bar = seen.topk(min(work.num_kept, len(seen))).values[-1]
        return (~(seen[-count:] < bar)).nonzero()[:, 0]
