"""The last step for an image: its maps are fused on the device, read in one copy, and returned as explanations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

from sess_ray.engine.explanation import Explanation, patch_table
from sess_ray.engine.fusion import fuse_all
from sess_ray.engine.settings import Settings
from sess_ray.engine.work import Work
from sess_ray.errors import SessError
from sess_ray.models import Model
from sess_ray.transfer import Download

T = TypeVar("T")


def one_batch_later(works: Iterable[Work], launch: Callable[[Work], T]) -> Iterator[tuple[Work, T]]:
    """Yield works with what was launched for each, once a later batch has been launched, so that reading need not wait.

    On a CPU, where everything is computed at once, yield immediately.
    """
    launched: deque[tuple[Work, T]] = deque()
    for work in works:
        launched.append((work, launch(work)))
        while launched and (work.source.device.type == "cpu" or launched[0][0].batch < work.batch):
            yield launched.popleft()
    yield from launched


class Ending:
    """An image's results on their way from the device.

    Parameters
    ----------
    work : Work
        With the maps of all kept windows.
    model : Model
    settings : Settings
    """

    def __init__(self, work: Work, model: Model, settings: Settings) -> None:
        self.model = model
        self.plan = work.plan
        self.chosen = work.chosen
        targets, count = work.goal.count, work.plan.num_patches
        self.shapes = {
            "saliency": (targets, work.plan.height, work.plan.width),
            "scores": (targets, count),
            "kept": tuple(work.kept.shape),
            "targets": (targets,),
            "probabilities": (targets,),
            "top": (2,),
        }
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        values = torch.empty(sum(sizes), device=settings.device)
        top = torch.stack([found.float() for found in work.probabilities[: model.num_classes].max(0)])
        rest = (work.scores, work.kept, work.targets, work.probabilities[work.targets], top)
        torch.cat([one.flatten().float() for one in rest], out=values[sizes[0] :])
        fuse_all(
            work.plan,
            work.maps,
            work.own_scores,
            work.kept,
            values[: sizes[0]].view(self.shapes["saliency"]),
            fusion=settings.fusion,
            normalize=settings.normalize,
            smooth=settings.smooths,
        )
        self._values = Download(values)
        self._maps = Download(work.maps) if settings.keep_maps else None

    def read(self) -> list[Explanation]:
        """Wait for the results and return an explanation for each target.

        Raises
        ------
        SessError
            If the model's scores are not finite.
        """
        values = self._values.read().numpy()
        found = {}
        for name, shape in self.shapes.items():
            part, values = np.split(values, [int(np.prod(shape))])
            found[name] = part.reshape(shape)
        predicted_score, predicted = found["top"].tolist()
        if not np.isfinite(predicted_score):
            raise SessError("the model gives scores that are not finite")
        maps = None if self._maps is None else self._maps.read().numpy()
        known = np.where(self.chosen.any(0), found["scores"], np.nan)
        explanations = []
        for slot, target in enumerate(found["targets"].astype(int).tolist()):
            kept = np.zeros(self.plan.num_patches, bool)
            kept[found["kept"][slot].astype(int)] = True
            explanations.append(
                Explanation(
                    saliency=self._own(found["saliency"][slot]),
                    target=target,
                    target_name=self.model.target_name(target),
                    target_classes=self.model.classes_of(target),
                    score=float(found["probabilities"][slot]),
                    predicted=int(predicted),
                    predicted_name=self.model.class_name(int(predicted)),
                    predicted_score=predicted_score,
                    patches=patch_table(self.plan, known[slot], self.chosen[slot].numpy(), kept),
                    plan=self.plan,
                    patch_maps=None if maps is None else self._own(maps[slot]),
                )
            )
        return explanations

    def _own(self, values: np.ndarray) -> np.ndarray:
        """Return values in memory that may be kept, which pinned memory may not."""
        return values.copy() if self._values.pinned else values
