"""Family T: class activation maps, from what the scoring pass has computed.

All methods take activations A and, if they need them, gradients g = d(logit)/dA, both (N, K, u, v) float32, and return
maps (N, u, v). The scoring pass costs so little that here einsum's copies would show, and passes over A that can be
saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sess_ray.methods.principal import first_part, project
from sess_ray.methods.registry import Scored, register
from sess_ray.models import Model


def _combine(weights: Tensor, activations: Tensor) -> Tensor:
    """Return ReLU(sum_k w_k A_k) for weights (N, K)."""
    found = weights[:, None] @ activations.flatten(2)
    return found.view(activations[:, 0].shape).relu_()


def _pools_linearly(model: Model) -> str | None:
    """Refuse unless a global mean and a linear layer follow: then gradients are equal everywhere, for all inputs."""
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

    If a global mean and a linear layer follow, g_k is W_ck divided by the number of positions, at every position. A
    group of classes has no weights of its own: its W_ck is the mean of its classes' weights, each weighted by its share
    of the group's probability on the patch.
    """
    found = (gradients * activations).sum(1)
    return found.relu_() if relu else found


@register("gradcam", family="T", paper="Selvaraju et al., Grad-CAM, ICCV 2017", passes="0")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh channels by their mean gradient: ReLU(sum_k mean(g_k) A_k)."""
    return _combine(gradients.mean((2, 3)), activations)


@register("gradcam++", family="T", paper="Chattopadhay et al., Grad-CAM++, WACV 2018", passes="0")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor, *, normalize_alpha: bool = False) -> Tensor:
    """Weigh channels by sum(alpha ReLU(g)) with alpha = g^2 / (2 g^2 + S_k g^3), S_k the sum of A_k.

    Where g > 0, alpha ReLU(g) is g / (2 + S_k g); elsewhere it is 0. A denominator of 0 becomes 1. The factor e^y of
    the paper is constant over a map and cancels in its min-max. ``normalize_alpha`` divides the alphas of a channel by
    their sum over the positions with g > 0, as the authors' code does, but not the paper.
    """
    positive = gradients.relu()
    denominators = (activations.sum((2, 3), keepdim=True) * positive).add_(2)
    denominators += denominators.clone().eq_(0)  # as floats: a mask takes five times as long
    weights = (positive / denominators).sum((2, 3))
    if normalize_alpha:
        totals = torch.where(positive > 0, 1 / denominators, 0).sum((2, 3))
        weights = weights / torch.where(totals == 0, 1.0, totals)
    return _combine(weights, activations)


@register("hirescam", family="T", paper="Draelos & Carin, HiResCAM, 2020", passes="0")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh activations by their own gradient at every position: ReLU(sum_k g_k A_k).

    If the gradient is the same everywhere, as before a global mean and a linear layer, this is Grad-CAM.
    """
    return (gradients * activations).sum(1).relu_()


@register("xgradcam", family="T", paper="Fu et al., Axiom-based Grad-CAM, BMVC 2020", passes="0")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh channels by their gradient, averaged over positions by activation: ReLU(sum_k w_k A_k).

    The weight w_k is sum(g_k A_k) / sum(A_k) over positions. A channel whose activations sum to 0 has no weight.
    """
    sums = activations.sum((2, 3))
    weights = (gradients * activations).sum((2, 3)) / torch.where(sums == 0, 1.0, sums)
    return _combine(torch.where(sums == 0, 0.0, weights), activations)


@register("layercam", family="T", paper="Jiang et al., LayerCAM, TIP 2021", passes="0")
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh activations by their own gradient where it is positive: ReLU(sum_k ReLU(g_k) A_k)."""
    return gradients.relu().mul_(activations).sum(1).relu_()


@register("eigencam", family="T", paper="Muhammad & Yeasin, Eigen-CAM, IJCNN 2020", passes="0")
def eigencam(activations: Tensor, *, centred: bool = False) -> Tensor:
    """Project activations on their first principal component, then apply a ReLU.

    The map of a patch is the same for every target. ``centred=True`` first subtracts each channel's mean, as
    pytorch-grad-cam does, but not the paper. The sign of a principal component is arbitrary; here it is the one that
    agrees with the mean of the channels.
    """
    return project(activations, centred).relu_()


@register("eigengradcam", family="T", paper="Gildenblat, pytorch-grad-cam, 2021, after Eigen-CAM", passes="0")
def eigengradcam(activations: Tensor, gradients: Tensor, *, centred: bool = True) -> Tensor:
    """Project the products g A on their first principal component, then apply a ReLU.

    The component's sign is the one that agrees with HiResCAM's sum of the same products; the library that defines the
    method leaves it to the decomposition. ``centred=True`` first subtracts each channel's mean, as that library does.
    """
    return project(gradients * activations, centred).relu_()


KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "sigmoid": lambda products, gamma: (gamma * products).add_(1).tanh_(),
    "rbf": lambda products, gamma: (-gamma * _squared_distances(products)).exp(),
    "poly": lambda products, gamma: (gamma * products + 1) ** 3,
}


@register("kpcacam", family="T", paper="Karmani et al., KPCA-CAM, 2024", passes="0")
def kpcacam(
    activations: Tensor, *, kernel: Literal["sigmoid", "rbf", "poly"] = "sigmoid", gamma: float = 0.0
) -> Tensor:
    """Project activations on their first principal component in the space of a kernel, then apply a ReLU.

    The samples are the positions, their features the channels minus each channel's mean. Kernels and their constants
    are scikit-learn's: tanh(gamma x.y + 1), exp(-gamma |x - y|^2), (gamma x.y + 1)^3; `gamma=0` means 1 over the
    number of channels. The map of a patch is the same for every target. The component's sign is the one that agrees
    with the mean of the channels; the authors' code leaves it to the decomposition.
    """
    samples = activations.flatten(2).mT  # (N, positions, K)
    samples = samples - samples.mean(1, keepdim=True)
    values = KERNELS[kernel](samples @ samples.mT, gamma or 1 / samples.shape[2])
    # Of the features that the kernel stands for, each minus its mean.
    values -= values.mean(1, keepdim=True)
    values -= values.mean(2, keepdim=True)
    return first_part(values, samples.sum(2)).view(activations[:, 0].shape).relu_()


def _squared_distances(products: Tensor) -> Tensor:
    squares = products.diagonal(dim1=1, dim2=2)
    return (squares[:, :, None] + squares[:, None] - 2 * products).clamp_(min=0)


Base = Literal["gradcam", "gradcam++", "hirescam", "xgradcam", "layercam"]
BASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "xgradcam": xgradcam,
    "layercam": layercam,
}


LEAST = torch.finfo(torch.float32).tiny


def _members(scored: Scored) -> Tensor:
    """Return which classes each row's target means, (N, classes) bool; with groups this waits for a GPU."""
    found = torch.zeros_like(scored.logits, dtype=torch.bool)
    if not scored.model.groups:
        return found.scatter_(1, scored.targets[:, None], value=True)
    for row, target in zip(found, scored.targets.tolist(), strict=True):
        row[list(scored.model.classes_of(target))] = True
    return found


@register("finercam", family="T", paper="Zhang et al., Finer-CAM, CVPR 2025", passes="0")
def finercam(
    activations: Tensor, *, scored: Scored, alpha: float = 1.0, classes: int = 3, base: Base = "gradcam"
) -> Tensor:
    """Run another method on what distinguishes the target from similar classes: y_c - alpha sum_j w_j y_j.

    The similar ones are the `classes` classes whose logits y_j are nearest to the target's, outside the target if that
    is a group. The weights w_j are their probabilities divided by the sum of these; gradients flow through the weights,
    too, as in the authors' code.
    ``alpha=0`` is the other method by itself.
    """
    logits, own = scored.logits, scored.model.logit_of(scored.logits, scored.targets)
    members = _members(scored)
    distances = (logits - own[:, None]).abs().masked_fill(members, torch.inf)
    near = distances.topk(min(classes, logits.shape[1] - 1), dim=1, largest=False)
    with torch.enable_grad():
        leaf = logits.clone().requires_grad_()
        weights = scored.model.probabilities(leaf).gather(1, near.indices).masked_fill(near.values.isinf(), 0)
        means = (weights * leaf.gather(1, near.indices)).sum(1) / weights.sum(1).clamp_min(LEAST)
        compared = scored.model.logit_of(leaf, scored.targets) - alpha * means
        (slopes,) = torch.autograd.grad(compared.sum(), leaf)
    # Up to rounding they are 0 for other classes; a head that knows this computes only these few.
    slopes *= members.scatter(1, near.indices, value=True)
    return BASES[base](activations, scored.pull(slopes))


@register("fem", family="T", paper="Fuad et al., Features Understanding in 3D CNNs, IPTA 2020", passes="0")
def fem(activations: Tensor, *, k: float = 2.0, maps: Literal["binary", "activations"] = "binary") -> Tensor:
    """Show where channels stand out: sum_k mean(A_k) B_k; B_k = 1 where A_k > mean + `k` standard deviations, else 0.

    The map of a patch is the same for every target. ``maps="activations"`` is pytorch-grad-cam's: the sum of A_k, each
    weighted by the share of positions where B_k is 1.
    """
    means = activations.mean((2, 3), keepdim=True)
    centred = activations - means
    # Torch's own standard deviation takes as long as all the rest.
    above = centred.gt_(k * centred.square().mean((2, 3), keepdim=True).sqrt_())
    if maps == "binary":
        return _combine(means.flatten(1), above)
    return _combine(above.mean((2, 3)), activations)
