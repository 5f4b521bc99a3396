"""The scoring pass: batches through the model; scores, and what the layer shows, into the images that they are of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sess_ray.engine.batches import Segment, Work, batches
from sess_ray.engine.fusion import num_kept
from sess_ray.engine.settings import LAYER, Settings
from sess_ray.methods.cam import gradcam
from sess_ray.models import Model
from sess_ray.models.model import Tap

# What an image may keep of its scoring pass for methods that look at the layer; what needs more is computed again.
LAYER_BYTES = 1 << 28


def buffer(settings: Settings) -> Tensor:
    """Return memory for a batch of patches."""
    shape = settings.batch_size, 3, settings.window, settings.window
    return torch.empty(shape, dtype=settings.dtype, device=settings.device).contiguous(
        memory_format=torch.channels_last
    )


def of_layer(tap: Tap, classes: Tensor, rows: Tensor | slice, names: Sequence[str]) -> dict[str, Tensor]:
    """Return activations, gradients or both of some rows of a batch."""
    return {name: tap.activations[rows] if name == "activations" else tap.gradients(classes, rows) for name in names}


class Scoring:
    """Scores windows, and with methods of family T makes their maps.

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
        """Yield images in their order, as soon as the last window of each is scored."""
        waiting: deque[Work] = deque()

        def started() -> Iterator[Work]:
            for work in works:
                waiting.append(work)
                yield work

        for patches, segments in batches(started(), buffer(self.settings)):
            self._score(self.model.tap(patches), segments)
            for segment in segments:
                segment.work.done(segment.count)
            while waiting and waiting[0].scored:
                work = waiting.popleft()
                work.filter(self.settings.ratio)
                yield work

    def _score(self, tap: Tap, segments: list[Segment]) -> None:
        """Take what a batch shows into the images that it is made of."""
        probabilities = self.model.probabilities(tap.logits)
        for segment in segments:
            if segment.whole is not None:
                segment.work.meet(probabilities[segment.whole], self.model.num_classes)
        for slot in range(max(len(segment.work.targets) for segment in segments)):
            classes = torch.zeros(len(probabilities), dtype=torch.int64)
            active = [segment for segment in segments if slot < len(segment.work.targets)]
            for segment in active:
                classes[segment.rows] = segment.work.targets[slot]
            classes = classes.to(self.settings.device)
            scores = probabilities.gather(1, classes[:, None])[:, 0]
            for segment in active:
                segment.work.score(slot, segment.places, scores[segment.rows])
            if self.settings.looks_at or self.settings.guides:
                self._look(tap, classes, slot, active)

    def _look(self, tap: Tap, classes: Tensor, slot: int, active: list[Segment]) -> None:
        """Take what is wanted of the layer, for windows that may survive the pre-filter, or that guide.

        Methods of family T make their maps of it at once; for the others it is remembered.
        """
        settings, method = self.settings, self.settings.method
        chosen = [self._promising(segment, slot) for segment in active]
        rows = torch.cat([segment.first + own for segment, own in zip(active, chosen, strict=True)])
        if not len(rows):
            return
        where = slice(None) if len(rows) == len(classes) else rows  # all: nothing needs to be copied
        values = of_layer(tap, classes, where, LAYER if settings.guides else settings.looks_at)
        found: list[tuple[Callable[..., None], list[Tensor]]] = []
        if settings.guides:
            found.append((Work.place_guides, [gradcam(*values.values())]))
        if method.family == "T":
            found.append((Work.place_maps, [method.function(*values.values(), **settings.method_options)]))
        elif settings.looks_at:
            found.append((self._remember, [values[name] for name in settings.looks_at]))
        for take, taken in found:
            parts = zip(*(value.split([len(own) for own in chosen]) for value in taken), strict=True)
            for segment, own, part in zip(active, chosen, parts, strict=True):
                if len(own):
                    take(segment.work, slot, segment.places[own], *part)

    def _remember(self, work: Work, slot: int, windows: Tensor, *values: Tensor) -> None:
        few = num_kept(work.plan.num_patches, self.settings.ratio)
        on_cpu = self.settings.device.type == "cpu"
        held = few if on_cpu else work.plan.num_patches
        if held * len(work.targets) * sum(value[0].nbytes for value in values) <= LAYER_BYTES:
            work.remember(slot, windows, *values, best=few if on_cpu else None)

    def _promising(self, segment: Segment, slot: int) -> Tensor:
        """Return which of a segment's windows are among the best so far, as many as the pre-filter keeps.

        On a GPU all of them: to wait for the scores would cost more than the maps. Where maps guide, all that the
        target has chosen.
        """
        settings, work, count = self.settings, segment.work, len(segment.windows)
        if settings.guides:
            return work.chosen[slot, segment.windows].nonzero()[:, 0].to(settings.device)
        own = torch.arange(count, device=settings.device)
        if not count or not settings.ratio or settings.device.type != "cpu":
            return own
        seen = work.scores[slot, : segment.windows[-1] + 1]
        bar = seen.topk(min(num_kept(work.plan.num_patches, settings.ratio), len(seen))).values[-1]
        return own[~(seen[-count:] < bar)]
