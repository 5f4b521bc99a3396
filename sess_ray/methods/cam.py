"""Family T: class activation maps, from what the scoring pass leaves behind.

All take activations A and gradients g = d(logit)/dA, both (N, K, u, v) float32, and return maps (N, u, v) >= 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sess_ray.methods.registry import register


def _combine(weights: Tensor, activations: Tensor) -> Tensor:
    """ReLU(sum_k w_k A_k) for weights (N, K)."""
    return torch.einsum("nk,nkuv->nuv", weights, activations).relu_()


@register("gradcam", family="T", paper="Selvaraju et al., Grad-CAM, ICCV 2017")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient: ReLU(sum_k mean(g_k) A_k)."""
    return _combine(gradients.mean((2, 3)), activations)


@register("gradcam++", family="T", paper="Chattopadhay et al., Grad-CAM++, WACV 2018")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by sum(alpha ReLU(g)) with alpha = g^2 / (2 g^2 + S_k g^3), S_k the sum of A_k.

    A denominator of 0 becomes 1. The factor e^y of the paper is constant over a map and cancels in its min-max.
    """
    squares = gradients.square()
    sums = activations.sum((2, 3), keepdim=True)
    denominators = 2 * squares + sums * squares * gradients
    denominators = torch.where(denominators == 0, 1.0, denominators)
    alphas = squares / denominators
    return _combine((alphas * gradients.relu()).sum((2, 3)), activations)
