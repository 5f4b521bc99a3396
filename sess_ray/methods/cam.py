"""Family T: class activation maps, from what the scoring pass leaves behind.

All methods take activations A and gradients g = d(logit)/dA, both (N, K, u, v) float32, and return maps (N, u, v).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sess_ray.methods.registry import register
from sess_ray.models import Model


def _combine(weights: Tensor, activations: Tensor) -> Tensor:
    """Return ReLU(sum_k w_k A_k) for weights (N, K)."""
    return torch.einsum("nk,nkuv->nuv", weights, activations).relu_()


def _pools_linearly(model: Model) -> str | None:
    """Refuse unless a mean and a linear map follow: then gradients are the same at all positions, for all inputs."""
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
    """Weigh channels by the classifier's weights: sum_k W_ck A_k.

    Where a global mean and a linear map follow, g_k is W_ck over the number of positions, everywhere alike. A group of
    classes has no weights of its own: W_ck is then the mean of its classes' weights, each by its share of the group's
    probability on the patch.
    """
    found = torch.einsum("nkuv,nkuv->nuv", gradients, activations)
    return found.relu_() if relu else found


@register("gradcam", family="T", paper="Selvaraju et al., Grad-CAM, ICCV 2017", passes="0")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh channels by their mean gradient: ReLU(sum_k mean(g_k) A_k)."""
    return _combine(gradients.mean((2, 3)), activations)


@register("gradcam++", family="T", paper="Chattopadhay et al., Grad-CAM++, WACV 2018", passes="0")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor, *, normalize_alpha: bool = False) -> Tensor:
    """Weigh channels by sum(alpha ReLU(g)) with alpha = g^2 / (2 g^2 + S_k g^3), S_k the sum of A_k.

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


@register("hirescam", family="T", paper="Draelos & Carin, HiResCAM, 2020", passes="0")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh activations by their own gradient at every position: ReLU(sum_k g_k A_k).

    Where the gradient is the same everywhere, as behind a global mean and a linear map, this is Grad-CAM.
    """
    return torch.einsum("nkuv,nkuv->nuv", gradients, activations).relu_()


@register("xgradcam", family="T", paper="Fu et al., Axiom-based Grad-CAM, BMVC 2020", passes="0")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh channels by their mean gradient, in which positions count by their activation: ReLU(sum_k w_k A_k).

    The weight w_k is sum(g_k A_k) / sum(A_k) over positions. A channel whose activations sum to 0 counts nothing.
    """
    sums = activations.sum((2, 3))
    weights = (gradients * activations).sum((2, 3)) / torch.where(sums == 0, 1.0, sums)
    return _combine(torch.where(sums == 0, 0.0, weights), activations)


@register("layercam", family="T", paper="Jiang et al., LayerCAM, TIP 2021", passes="0")
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh activations by their own gradient where it is positive: ReLU(sum_k ReLU(g_k) A_k)."""
    return torch.einsum("nkuv,nkuv->nuv", gradients.relu(), activations).relu_()


@register("eigencam", family="T", paper="Muhammad & Yeasin, Eigen-CAM, IJCNN 2020", passes="0")
def eigencam(activations: Tensor, gradients: Tensor, *, centred: bool = False) -> Tensor:
    """Project activations on their first principal component, with a ReLU behind it.

    The map of a patch is the same for every target. ``centred=True`` takes each channel's mean off first, as
    pytorch-grad-cam does and the paper does not. The sign of a principal component means nothing; here it is the one
    that agrees with the mean of the channels.
    """
    del gradients
    return _principal(activations, centred)


@register("eigengradcam", family="T", paper="Gildenblat, pytorch-grad-cam, 2021, after Eigen-CAM", passes="0")
def eigengradcam(activations: Tensor, gradients: Tensor, *, centred: bool = True) -> Tensor:
    """Project the products g A on their first principal component, with a ReLU behind it.

    The component's sign is the one that agrees with HiResCAM's sum of the same products; the library that defines the
    method leaves it to the decomposition. ``centred=True`` takes each channel's mean off first, as that library does.
    """
    return _principal(gradients * activations, centred)


SQUARINGS = 12  # 2^12 steps of the power iteration


def _principal(values: Tensor, centred: bool) -> Tensor:
    """Return the part of the mean over channels that lies along the first principal component, ReLU, (N, u, v).

    The powers of the products of channels with channels, or of positions with positions where those are fewer,
    converge to the projector on their first eigenvector, which is a singular vector of the values; unlike a
    decomposition they do not wait for a GPU.
    """
    samples = values.flatten(2)  # (N, K, positions)
    if centred:
        samples = samples - samples.mean(2, keepdim=True)
    few_channels = samples.shape[1] < samples.shape[2]
    sides = (samples, samples.transpose(1, 2)) if few_channels else (samples.transpose(1, 2), samples)
    projector = sides[0] @ sides[1]
    for _ in range(SQUARINGS):
        projector = _over_trace(projector)
        projector = projector @ projector
    projector = _over_trace(projector)
    # With u and v the left and the right vector, u u' S 1 = S v v' 1.
    along = (
        samples.transpose(1, 2) @ projector.sum(2, keepdim=True)
        if few_channels
        else projector @ sides[0].sum(2, keepdim=True)
    )
    return along.view(len(values), *values.shape[2:]).relu_()


def _over_trace(matrices: Tensor) -> Tensor:
    traces = matrices.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    return matrices / torch.where(traces == 0, 1.0, traces)


@register("fem", family="T", paper="Fuad et al., Features Understanding in 3D CNNs, IPTA 2020", passes="0")
def fem(
    activations: Tensor, gradients: Tensor, *, k: float = 2.0, maps: Literal["binary", "activations"] = "binary"
) -> Tensor:
    """Show where channels stand out: sum_k mean(A_k) B_k, B_k = 1 where A_k > mean + `k` standard deviations, else 0.

    The map of a patch is the same for every target. ``maps="activations"`` is pytorch-grad-cam's: the sum of A_k, each
    weighted by the share of positions where B_k is 1.
    """
    del gradients
    means = activations.mean((2, 3), keepdim=True)
    above = (activations > means + k * activations.std((2, 3), correction=0, keepdim=True)).float()
    found = means * above if maps == "binary" else above.mean((2, 3), keepdim=True) * activations
    return found.sum(1).relu_()
