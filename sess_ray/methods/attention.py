"""Family B: from the attention of all layers of a transformer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sess_ray.methods.passes import Shared
from sess_ray.methods.registry import register
from sess_ray.models import Model
from sess_ray.models.layers import to_grid


class Attentions(TorchFunctionMode):
    """While it is active, every softmax over keys is kept, (N, heads, queries, keys); the model is not changed.

    Torch's fused attention never holds the softmax in memory, so attention is computed in plain steps here.

    Parameters
    ----------
    keep : callable
        Takes each softmax and returns what is to be kept of it.
    """

    SOFTMAXES = (F.softmax, torch.softmax, Tensor.softmax)
    OF_MODULES = inspect.signature(F.multi_head_attention_forward)

    def __init__(self, keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.keep = keep
        self.found: list[Tensor] = []

    def __torch_function__(
        self, function: Callable[..., Any], _: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function == F.scaled_dot_product_attention:
            return self._attended(*args, **kwargs)
        if function == F.multi_head_attention_forward:
            return self._of_module(self.OF_MODULES.bind(*args, **kwargs).arguments), None
        result = function(*args, **kwargs)
        if function in self.SOFTMAXES and result.ndim == 4:
            self.found.append(self.keep(result))
        return result

    def _attended(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *_: object,
        scale: float | None = None,
        **__: object,
    ) -> Tensor:
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if masked else scores + attn_mask
        attention = scores.softmax(-1)
        self.found.append(self.keep(attention))
        return attention @ value

    def _of_module(self, given: dict[str, Any]) -> Tensor:
        """Return the output of nn.MultiheadAttention, (tokens, N, channels)."""
        weights, biases = given["in_proj_weight"].chunk(3), given["in_proj_bias"].chunk(3)
        inputs = (given[name] for name in ("query", "key", "value"))
        heads = (
            F.linear(one, weight, bias).unflatten(-1, (given["num_heads"], -1)).permute(1, 2, 0, 3)
            for one, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        together = self._attended(*heads, given.get("attn_mask")).permute(2, 0, 1, 3).flatten(2)
        return F.linear(together, given["out_proj_weight"], given["out_proj_bias"])


def _attentions(
    model: Model, patches: Tensor, keep: Callable[[Tensor], Tensor] = lambda attention: attention
) -> tuple[Tensor, list[Tensor]]:
    """Return logits, and what is kept of each layer's attention; with gradients if these are enabled."""
    start = patches.detach().clone().requires_grad_(torch.is_grad_enabled())
    with Attentions(keep) as seen:
        logits = model.module(start)
    return logits, seen.found


_READ: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()


def _read(model: Model) -> Tensor:
    """Return the share of each token in what the head reads, (tokens,): 1 for the class token, or equal for several.

    The head reads those tokens after the last attention for which the logits have a gradient.
    """
    if model.module not in _READ:
        probe = model.probe()
        probe += torch.randn(probe.shape, generator=torch.Generator().manual_seed(0)).to(probe)
        with torch.enable_grad():
            logits, attentions = _attentions(model, probe)
            (gradient,) = torch.autograd.grad(logits.square().sum(), attentions[-1])
        read = gradient.any(dim=(0, 1, 3)).float()
        _READ[model.module] = read / read.sum()
    return _READ[model.module]


def _attends(model: Model) -> str | None:
    """Refuse unless every layer attends from all tokens to all tokens, and the tokens form a grid."""
    with torch.no_grad():
        shapes = [tuple(attention.shape) for attention in _attentions(model, model.probe(2))[1]]
    if not shapes:
        return "it has no attention"
    n, _, queries, keys = shapes[0]
    if n != 2 or queries != keys or any((shape[0], *shape[2:]) != (2, queries, keys) for shape in shapes):
        return "its attention is not from all tokens to all tokens in every layer"
    height, width = model.sides
    u, v = model.positions or (0, 0)
    if height != width and not u * v <= keys < (u + 1) * (v + 1):
        return f"layer {model.layer} does not tell which grid its {keys} tokens have over {height} x {width} pixels"
    if not _read(model).isfinite().all():
        return "its logits do not depend on its last attention"
    return None


def _map_of(tokens: Tensor, model: Model) -> Tensor:
    return to_grid(tokens[..., None], "NTC", model.positions)[:, 0]


FUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda attention: attention.float().mean(1),
    "max": lambda attention: attention.float().amax(1),
    "min": lambda attention: attention.float().amin(1),
}


@register(
    "attention_rollout",
    family="B",
    reaches="nothing",
    paper="Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020",
    passes="1 forward",
    check=_attends,
)
@torch.no_grad()
def attention_rollout(
    model: Model, patches: Tensor, targets: Tensor, *, same_as: Tensor, heads: Literal["mean", "max", "min"] = "mean"
) -> Tensor:
    """Follow attention from what the head reads down to the patches: product over layers of (A + I) / 2.

    A is the mean, or with `heads` the largest or least, over a layer's heads, and rows are divided by their sums. The
    map of a patch is the same for every target. If the head reads the mean of tokens instead of a class token, the map
    is the mean of these tokens' maps.
    """
    shared = Shared.of(targets, same_as)
    read = _read(model)
    _, attentions = _attentions(model, patches[shared.rows], FUSED[heads])
    tokens = read.expand(len(shared.rows), -1)
    for attention in reversed(attentions):
        tokens = tokens / (1 + attention.sum(2))
        tokens = tokens + torch.einsum("nq,nqk->nk", tokens, attention)
    return _map_of(tokens, model)[shared.own[0]]


@register(
    "generic_attention",
    family="B",
    paper="Chefer et al., Generic Attention-model Explainability, ICCV 2021",
    passes="1 forward + backward",
    check=_attends,
)
def generic_attention(model: Model, patches: Tensor, targets: Tensor) -> Tensor:
    """Follow attention times its gradient, where positive, down to the patches: product over layers of I + mean_h(.)+.

    This is the self-attention rule of the ICCV paper, which replaces the relevance propagation of the same authors'
    transformer attribution (CVPR 2021) with the attention itself. If the head reads the mean of tokens instead of a
    class token, the map is the mean of these tokens' maps.
    """
    read = _read(model)
    with torch.enable_grad():
        logits, attentions = _attentions(model, patches)
        gradients = torch.autograd.grad(model.logit_of(logits, targets).sum(), attentions)
    tokens = read.expand(len(patches), -1)
    for attention, gradient in zip(reversed(attentions), reversed(gradients), strict=True):
        relevance = (attention.detach() * gradient).float().relu().mean(1)
        tokens = tokens + torch.einsum("nq,nqk->nk", tokens, relevance)
    return _map_of(tokens, model)
