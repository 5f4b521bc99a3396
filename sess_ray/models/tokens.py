"""The scoring pass of a transformer whose head reads one token.

Behind the last attention nobody reads the other tokens. What a block computes there of each token for itself, two
thirds of its multiplications, is computed for that one token, forwards and backwards; and so is torch's own attention,
of which only keys and values of all tokens remain. Scores and gradients stay.
"""

from __future__ import annotations

import copy
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sess_ray.models.layers import hooked
from sess_ray.models.onednn import TOLERANCES


class Only(nn.Module):
    """Passes one token on, (N, T, K) to (N, 1, K); a sum with all tokens is right for that one."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, self.token : self.token + 1]


class OneQuery(nn.Module):
    """nn.MultiheadAttention of one token to all, (N, T, K) to (N, 1, K)."""

    def __init__(self, attention: nn.MultiheadAttention, token: int) -> None:
        super().__init__()
        self.attention, self.token = attention, token

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool) -> tuple[Tensor, None]:
        assert key is value
        assert not need_weights
        attention, size = self.attention, query.shape[2]
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        biases = (None, None) if bias is None else (bias[:size], bias[size:])
        one = F.linear(query[:, self.token : self.token + 1], weight[:size], biases[0])
        all_ = F.linear(key, weight[size:], biases[1]).chunk(2, -1)
        heads = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (one, *all_))
        found = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return attention.out_proj(found), None


def read_alone(module: nn.Module, layer: str, patches: Tensor) -> nn.Module | None:
    """Return a module that scores as `module` does, but computes behind the last attention only what the head reads.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; its parameters need no gradient. It stays as it is.
    layer : str
        The first norm of its last block.
    patches : Tensor, (N, 3, h, w)
        Any pixels, to see which tokens the head reads and whether scores stay.

    Returns
    -------
    nn.Module or None
        A module that shares its weights. None where the head reads several tokens, where the block has no second norm,
        or where scores change.
    """
    try:
        norm = _second_norm(module, layer)
        if norm is None:
            return None
        token, wanted = _read(module, norm, patches)
        if token is None:
            return None
        shared = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
        changed = copy.deepcopy(module, shared)
        block = changed.get_submodule(norm.rpartition(".")[0])
        for name, part in list(block.named_children()):
            if isinstance(part, nn.MultiheadAttention) and _is_plain(part):
                block.set_submodule(name, OneQuery(part, token))
        changed.set_submodule(norm, nn.Sequential(changed.get_submodule(norm), Only(token)))
        with torch.no_grad():
            given = changed(patches).float()
    except Exception:  # any module may come: what cannot be cut is scored as it is
        return None
    alike = (
        given.shape == wanted.shape and (wanted - given).abs().max() <= TOLERANCES[patches.dtype] * wanted.abs().max()
    )
    return changed if alike else None


def _second_norm(module: nn.Module, layer: str) -> str | None:
    """Return the name of the second norm in a block of two; None where `layer` is not the first."""
    block = layer.rpartition(".")[0]
    siblings = module.get_submodule(block).named_children() if block else ()
    norms = [f"{block}.{name}" for name, child in siblings if isinstance(child, nn.LayerNorm)]
    return norms[1] if len(norms) == 2 and norms[0] == layer else None


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    """Say whether `OneQuery` knows all that an attention does; scores in bfloat16 are compared too coarsely to tell."""
    own = type(attention).forward is nn.MultiheadAttention.forward
    keys_of_no_token = attention.bias_k is not None or attention.add_zero_attn
    return own and attention.batch_first and attention.in_proj_weight is not None and not keys_of_no_token


def _read(module: nn.Module, norm: str, patches: Tensor) -> tuple[int | None, Tensor]:
    """Return the one token of a norm's output that the logits depend on, None if there are several; and the logits."""
    leaves: list[Tensor] = []

    def leave(_: nn.Module, __: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()

    with torch.enable_grad(), hooked(module.get_submodule(norm), leave):
        logits = module(patches)
        (gradient,) = torch.autograd.grad(logits.float().square().sum(), leaves)
    tokens = gradient.any(2).any(0).nonzero()[:, 0].tolist() if gradient.ndim == 3 else []
    return tokens[0] if len(tokens) == 1 else None, logits.detach().float()
