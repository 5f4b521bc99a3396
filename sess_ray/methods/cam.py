"""Family T: class activation maps, from what the scoring pass leaves behind.

All take activations A and gradients g = d(logit)/dA, both (N, K, u, v) float32, and return maps (N, u, v).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sess_ray.methods.registry import register
from sess_ray.models import Model


def _combine(weights: Tensor, activations: Tensor) -> Tensor:
    """ReLU(sum_k w_k A_k) for weights (N, K)."""
    return torch.einsum("nk,nkuv->nuv", weights, activations).relu_()


def _pools_linearly(model: Model) -> str | None:
    """Behind the layer a mean and a linear map: then gradients are the same at all positions and for all inputs."""
    probe = model.probe(2)
    probe += torch.randn(probe.shape, generator=torch.Generator().manual_seed(0)).to(probe)
    try:
        gradients = model.tap(probe).gradients(torch.zeros(2, dtype=torch.int64, device=probe.device))
    except RuntimeError:
        return f"no gradient comes back to layer {model.layer}"
    constant = gradients[:1, :, :1, :1].expand_as(gradients)
    largest = float(constant.abs().max())
    if largest > 0 and torch.allclose(gradients, constant, rtol=1e-2, atol=1e-3 * largest):
        return None
    return f"behind layer {model.layer} it is not a global mean and a linear classifier"


@register("cam", family="T", paper="Zhou et al., Learning Deep Features, CVPR 2016", passes="0", check=_pools_linearly)
def cam(activations: Tensor, gradients: Tensor, *, relu: bool = False) -> Tensor:
    """Channels weighted by the classifier's weights: sum_k W_ck A_k.

    Where a global mean and a linear map follow, g_k is W_ck over the number of positions, everywhere alike. A group of
    classes has no weights of its own: W_ck is then the mean of its classes' weights, each by its share of the group's
    probability on the patch.
    """
    found = torch.einsum("nkuv,nkuv->nuv", gradients, activations)
    return found.relu_() if relu else found


@register("gradcam", family="T", paper="Selvaraju et al., Grad-CAM, ICCV 2017", passes="0")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient: ReLU(sum_k mean(g_k) A_k)."""
    return _combine(gradients.mean((2, 3)), activations)


@register("gradcam++", family="T", paper="Chattopadhay et al., Grad-CAM++, WACV 2018", passes="0")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor, *, normalize_alpha: bool = False) -> Tensor:
    """Channels weighted by sum(alpha ReLU(g)) with alpha = g^2 / (2 g^2 + S_k g^3), S_k the sum of A_k.

    A denominator of 0 becomes 1. The factor e^y of the paper is constant over a map and cancels in its min-max.
    ``normalize_alpha`` divides the alphas of a channel by their sum over the positions with g > 0, which the authors'
    code does and the paper does not.
    """
    squares = gradients.square()
    sums = activations.sum((2, 3), keepdim=True)
    denominators = 2 * squares + sums * squares * gradients
    denominators = torch.where(denominators == 0, 1.0, denominators)
    alphas = squares / denominators
    if normalize_alpha:
        totals = torch.where(gradients > 0, alphas, 0).sum((2, 3), keepdim=True)
        alphas = alphas / torch.where(totals == 0, 1.0, totals)
    return _combine((alphas * gradients.relu()).sum((2, 3)), activations)
