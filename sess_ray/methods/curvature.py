"""Family B: from second derivatives of the target's score at the layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sess_ray.methods.registry import DEFAULTS, register
from sess_ray.models import Model


@contextmanager
def replacing(model: Model, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While it is active, the output of the model's layer is replaced by a function of it."""

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return replace(output)

    handle = model.module.get_submodule(model.layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _curves(model: Model) -> str | None:
    """Refuse if the head has no second derivatives, like some of torch's kernels."""
    try:
        shapleycam(model, model.probe(), torch.zeros(1, dtype=torch.int64, device=model.probe().device))
    except RuntimeError as error:
        return f"its head cannot be differentiated twice ({str(error).splitlines()[0]})"
    return None


@register(
    "shapleycam",
    family="B",
    paper="Cai, CAMs as Shapley Value-based Explainers, 2025",
    passes="1 forward + 2 head backwards",
    check=_curves,
    sess_defaults=DEFAULTS["nothing"],  # borders show with the ratio of its cost (docs/research.md)
)
def shapleycam(model: Model, patches: Tensor, targets: Tensor) -> Tensor:
    """Weigh channels by their mean Shapley value, to second order: ReLU(sum_k mean(g_k - (H A)_k / 2) A_k).

    Gradient g and Hessian H are those of the paper's utility, ReST: the target's logit plus the logarithm of its
    probability. H A costs a second backward pass through the head; H itself is never computed.
    """
    leaves: list[Tensor] = []

    def leave(output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()  # layers after it may work in place

    # Torch's fused attention has no second derivatives.
    with torch.enable_grad(), replacing(model, leave), sdpa_kernel(SDPBackend.MATH):
        logits = model.module(patches)
        utilities = model.logit_of(logits, targets) + model.log_probability_of(logits, targets)
        (gradient,) = torch.autograd.grad(utilities.sum(), leaves[-1], create_graph=True)
        (curved,) = torch.autograd.grad(gradient, leaves[-1], leaves[-1].detach(), materialize_grads=True)
    activations, values = (model.gridded(one.detach().float()) for one in (leaves[-1], gradient - curved / 2))
    return torch.einsum("nk,nkuv->nuv", values.mean((2, 3)), activations).relu_()
