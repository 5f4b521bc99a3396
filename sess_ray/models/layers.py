"""Which layer class activation maps are made from, and the layout of its output.

There is no list of architectures: a probe runs once through the model and records the output of each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import torch
from torch import Tensor, nn

from sess_ray.errors import SessError, unknown

Layout = Literal["NCHW", "NHWC", "NTC"]

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool1d)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
# What libraries call a transformer block's first norm.
_TRANSFORMER_NORMS = ("norm1", "ln_1", "layernorm_before", "layer_norm1", "layer_norm_1")


@dataclass(frozen=True)
class _Output:
    name: str
    module: nn.Module
    tensor: Tensor


def _probe(module: nn.Module, size: int) -> tuple[list[_Output], Tensor]:
    """Run one grey image through the model; return the layers' outputs in order of completion, and the logits."""
    outputs: list[_Output] = []

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(layer: nn.Module, _: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs.append(_Output(name, layer, output))

        return module.get_submodule(name).register_forward_hook(hook)

    handles = [watch(name) for name, _ in module.named_modules() if name]
    parameter = next(module.parameters(), torch.zeros(1))
    try:
        with torch.no_grad():
            logits = module(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    except Exception as error:
        raise SessError(refused(size, error)) from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise SessError("the model must map N x 3 x H x W images to N x classes logits")
    return outputs, logits


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., object]) -> Iterator[None]:
    """Let `hook` see a module's output, or change it."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def refused(size: int, error: Exception) -> str:
    """Say that a module does not accept images of a size, and what to do."""
    reason = (str(error) or type(error).__name__).split("\n")[0]
    todo = "if it wants another size, give it (--input-size, input_size=)"
    if "channel" in reason:
        todo = "images are RGB, so give a model that takes those"
    return f"the model does not take N x 3 x {size} x {size} images ({reason}): {todo}"


def _layout(tensor: Tensor) -> Layout | None:
    """Return how a layer's output holds a grid of positions, or None if it does not."""
    if tensor.ndim == 3 and tensor.shape[0] == 1 and tensor.shape[1] >= 4:
        return "NTC"
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        _, a, b, c = tensor.shape
        if b == c and b > 1:
            return "NCHW"
        if a == b and a > 1:
            return "NHWC"
    return None


def to_grid(tensor: Tensor, layout: Layout) -> Tensor:
    """Return a layer's output (or its gradient) as (N, K, u, v).

    Tokens are read as a square grid in row-major order, after the class (and register) tokens, which are left out.
    """
    if layout == "NTC":
        n, tokens, channels = tensor.shape
        side = isqrt(tokens)
        return tensor[:, tokens - side * side :].reshape(n, side, side, channels).permute(0, 3, 1, 2)
    if layout == "NHWC":
        return tensor.permute(0, 3, 1, 2)
    return tensor


def _leads(norm: _Output, outputs: list[_Output]) -> bool:
    """Say whether a norm comes first in its block.

    A norm after the attention, as in Swin v2, sees only what the block adds, not what passes through it.
    """
    block = norm.name.rpartition(".")[0] + "."
    inside = [output.module for output in outputs[: outputs.index(norm)] if output.name.startswith(block)]
    return not any(isinstance(part, nn.Linear) for layer in inside for part in layer.modules())


def _check_tokens(chosen: _Output, outputs: list[_Output]) -> None:
    """Refuse tokens if it is not clear which of them are the positions.

    The convolutions before the tokens tell how many positions there are. Without that, register tokens could be taken
    for positions of a small image, and positions that are no square for one.
    """
    tokens = chosen.tensor.shape[1]
    before = outputs[: outputs.index(chosen)]
    grids = [output.tensor.shape[2:] for output in before if isinstance(output.module, nn.Conv2d)]
    if grids and grids[-1][0] != grids[-1][-1] and grids[-1].numel() <= tokens:
        across = " x ".join(map(str, grids[-1]))
        raise SessError(f"layer {chosen.name!r} gives tokens of {across} positions, and maps need a square of them")
    sides = {output.tensor.shape[-1] for output in before if _layout(output.tensor) == "NCHW"}
    side = max((side for side in sides if side * side <= tokens), default=isqrt(tokens))
    if side != isqrt(tokens):
        raise SessError(
            f"layer {chosen.name!r} gives {tokens} tokens, and which of them are the {side} x {side} positions is"
            " not clear: name another layer"
        )


def find_layer(module: nn.Module, size: int, layer: str | None) -> tuple[str, Layout, int]:
    """Return the layer for class activation maps, its layout and the number of classes.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    size : int
        Side of its input.
    layer : str or None
        A layer's name as in ``named_modules``. None finds the last layer before the classifier that still has
        positions, except pooling (VGG-16 features.29, ResNet layer4, SqueezeNet features, EfficientNet the
        last convolution's norm), or in a transformer the last block's first norm, if it comes before the attention.

    Raises
    ------
    SessError
        If there is no such layer or its output has no positions.
    """
    outputs, logits = _probe(module, size)
    num_classes = logits.shape[1]
    if layer is not None:
        known = [name for name, _ in module.named_modules() if name]
        if layer not in known:
            raise unknown("layer", layer, known)
        found = [output for output in outputs if output.name == layer]
        layout = _layout(found[-1].tensor) if found else None
        if layout is None:
            gives = tuple(found[-1].tensor.shape) if found else "no tensor"
            raise SessError(f"layer {layer!r} has no grid of positions to make a map of (it gives {gives})")
        if layout == "NTC":
            _check_tokens(found[-1], outputs)
        return layer, layout, num_classes

    ends = [i for i, output in enumerate(outputs) if isinstance(output.module, nn.Linear | nn.Conv2d)]
    before = outputs[: ends[-1]] if ends else []
    pooled = {id(output.tensor) for output in before if isinstance(output.module, _POOLS)}
    candidates = [
        output
        for output in before
        if _layout(output.tensor) and not isinstance(output.module, _NOTHING) and id(output.tensor) not in pooled
    ]
    norms = [output for output in candidates if output.name.endswith(_TRANSFORMER_NORMS) and _leads(output, outputs)]
    if norms and _layout(norms[-1].tensor) != "NCHW":
        candidates = norms
    if not candidates:
        raise SessError("found no layer to look at in this model: name one with layer=")
    chosen = candidates[-1]
    layout = _layout(chosen.tensor)
    assert layout is not None
    if layout == "NTC":
        _check_tokens(chosen, outputs)
    return chosen.name, layout, num_classes
