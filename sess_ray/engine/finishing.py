"""The end of an image's way: its maps fused, and told as explanations."""

from __future__ import annotations

import numpy as np

from sess_ray.engine.batches import Work
from sess_ray.engine.explanation import Explanation, patch_table
from sess_ray.engine.fusion import fuse
from sess_ray.engine.settings import Settings
from sess_ray.errors import SessError
from sess_ray.models import Model


def explanations(work: Work, model: Model, settings: Settings) -> list[Explanation]:
    """Fuse the maps of an image and return an explanation for each of its targets.

    Raises
    ------
    SessError
        If the model's scores are not finite.
    """
    if not work.probabilities.isfinite().all():
        raise SessError("the model gives scores that are not finite")
    predicted = int(work.probabilities[: model.num_classes].argmax())
    return [_explanation(work, model, settings, slot, predicted) for slot in range(len(work.targets))]


def _explanation(work: Work, model: Model, settings: Settings, slot: int, predicted: int) -> Explanation:
    target, maps = work.targets[slot], work.maps[slot]
    scores, kept, chosen = work.scores[slot], work.kept[slot], work.chosen[slot]
    if settings.method.family == "T":
        maps = maps[kept]
    saliency = fuse(
        work.plan,
        maps,
        scores.where(chosen.to(settings.device), 0),
        kept,
        fusion=settings.fusion,
        normalize=settings.normalize,
        smooth=settings.smooths,
    )
    known = np.where(work.chosen.any(0), scores.cpu(), np.nan)
    return Explanation(
        saliency=saliency.cpu().numpy(),
        target=target,
        target_name=model.target_name(target),
        target_classes=model.classes_of(target),
        score=float(work.probabilities[target]),
        predicted=predicted,
        predicted_name=model.class_name(predicted),
        predicted_score=float(work.probabilities[predicted]),
        patches=patch_table(work.plan, known, chosen.numpy(), kept.cpu().numpy()),
        plan=work.plan,
        patch_maps=maps.cpu().numpy() if settings.keep_maps else None,
    )
