"""Family P: from the target's logit without a channel of the layer."""

from __future__ import annotations

import torch
from torch import Tensor

from sess_ray.methods.curvature import replacing
from sess_ray.methods.passes import Shared
from sess_ray.methods.registry import register
from sess_ray.models import Model

CHANNELS = 32  # channels left out in one pass, at least


@register(
    "ablationcam",
    family="P",
    paper="Desai & Ramaswamy, Ablation-CAM, WACV 2020",
    passes="K head forwards for K live channels",
)
@torch.no_grad()
def ablationcam(
    model: Model, patches: Tensor, targets: Tensor, *, activations: Tensor, same_as: Tensor, batch_size: int
) -> Tensor:
    """Weigh channels by what the target's logit loses without each: ReLU(sum_k (y - y_k) A_k).

    y_k is the logit with channel k set to 0. The paper divides by y, which is constant over a map and cancels in its
    min-max; but a negative y would invert the map, although the zero of logits is arbitrary.
    """
    shared = Shared.of(targets, same_as)
    losses = activations.new_zeros(len(shared.rows), shared.classes.shape[1], activations.shape[1])
    for patch, row in enumerate(shared.rows.tolist()):
        for channels in _live(activations[row]).split(max(CHANNELS, batch_size)):
            logits = _without(model, patches[row : row + 1], channels)
            for place, target in enumerate(shared.classes[patch]):
                own = model.logit_of(logits, target.expand(len(logits)))
                losses[patch, place, channels] = own[0] - own[1:]
    return torch.einsum("nk,nkuv->nuv", losses[shared.own], activations).relu_()


def _live(activations: Tensor) -> Tensor:
    """Return the channels of activations (K, u, v) that are not 0 everywhere."""
    return activations.flatten(1).any(1).nonzero()[:, 0]


def _without(model: Model, patch: Tensor, channels: Tensor) -> Tensor:
    """Return logits of a patch as it is, and without each of the layer's channels, (1 + M, classes) float32."""
    count = 1 + len(channels)

    def ablated(output: Tensor) -> Tensor:
        copies = output[:1].repeat_interleave(count, 0)
        axis = 1 if model.layout == "NCHW" else -1
        copies.movedim(axis, 1)[torch.arange(1, count), channels] = 0
        return copies

    with replacing(model, ablated):
        try:
            logits = model.module(patch)  # once up to the layer
        except RuntimeError:  # a head that needs as many rows as there are patches
            logits = model.module(patch.expand(count, -1, -1, -1))
    return logits.float()
