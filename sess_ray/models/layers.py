"""Which layer class activation maps are made from, and the layout of its output.

There is no list of architectures: a probe runs once through the model and records the output of each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import isqrt, prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sess_ray.errors import SessError, unknown
from sess_ray.windows import Size, in_words, sides, size_of

Layout = Literal["NCHW", "NHWC", "NTC"]

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool1d)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
# What libraries call a transformer block's first norm.
_TRANSFORMER_NORMS = ("norm1", "ln_1", "layernorm_before", "layer_norm1", "layer_norm_1")


# What to do, by words of torch's for why a module does not take images.
_TODO = {
    ("channel",): "images are RGB, so give a model that takes those",
    ("positional argument", "keyword argument"): "its forward is called with the images alone",
    ("require gradient", "retain_grad"): "leave the hooks on tensors out of its forward, where gradients may be off",
    ("dtype", "bias type", "scalar type"): "it runs in float32, so leave casts out of its forward",
    ("NVIDIA", "CUDA", "cuda"): "leave the device out of its forward, it is moved to the one it runs on",
}


class Found(NamedTuple):
    """A layer for class activation maps.

    Attributes
    ----------
    name : str
    layout : {"NCHW", "NHWC", "NTC"}
    num_classes : int
        The number of the model's classes.
    positions : (int, int) or None
        Rows and columns of the positions among tokens; None where they are the largest square.
    """

    name: str
    layout: Layout
    num_classes: int
    positions: tuple[int, int] | None


@dataclass(frozen=True)
class _Output:
    name: str
    module: nn.Module
    tensor: Tensor


def _probe(module: nn.Module, size: Size) -> tuple[list[_Output], Tensor]:
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
            logits = module(torch.zeros(1, 3, *sides(size), device=parameter.device, dtype=parameter.dtype))
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


def refused(size: Size, error: Exception) -> str:
    """Say that a module does not accept images of a size, and what to do."""
    reason = (str(error) or type(error).__name__).split("\n")[0]
    size_wanted = "if it wants another size, give it (--input-size, input_size=)"
    todo = next((todo for words, todo in _TODO.items() if any(word in reason for word in words)), size_wanted)
    return f"the model does not take N x 3 x {in_words(sides(size))} images ({reason}): {todo}"


def is_grid(height: int, width: int, size: Size) -> bool:
    """Say whether so many rows and columns of cells divide an input of a size.

    Those of a square input are a square. In another, cells have one stride along both axes, and convolutions without
    padding take as many cells from one as from the other: none, or at most as many as the shorter one has left.

    >>> is_grid(7, 7, 224), is_grid(8, 4, (256, 128)), is_grid(9, 5, (48, 32)), is_grid(4, 8, (256, 128))
    (True, True, True, False)
    """
    down, across = sides(size)
    if min(height, width) < 1 or height * width == 1:
        return False
    if down == across:
        return height == width
    few, many = (width, height) if down > across else (height, width)
    short, long = sorted((down, across))
    # With stride s, long / s - many = short / s - few is what is taken; each number of cells is rounded.
    least, most = (short * (many - few + rounding) / (long - short) - few for rounding in (-1, 1))
    return least <= few and most >= -1


class _Layouts:
    """How the layers of a model hold grids of positions.

    Parameters
    ----------
    outputs : list of _Output
    size : int or (int, int)
        The model's input size.
    """

    def __init__(self, outputs: list[_Output], size: Size) -> None:
        self.size = size
        # By shape, where a layer's own parameters say which axis has the channels.
        self.told: dict[torch.Size, Layout] = {}
        for output in outputs:
            layout = _told(output)
            if layout:
                self.told[output.tensor.shape] = layout

    def of(self, tensor: Tensor) -> Layout | None:
        """Return how an output holds a grid of positions, or None if it does not."""
        if tensor.ndim == 3 and tensor.shape[0] == 1 and tensor.shape[1] >= 4:
            return "NTC"
        if tensor.ndim != 4 or tensor.shape[0] != 1:
            return None
        _, a, b, c = tensor.shape
        grids: dict[Layout, tuple[int, int]] = {"NCHW": (b, c), "NHWC": (a, b)}
        found = [layout for layout, grid in grids.items() if is_grid(*grid, self.size)]
        if len(found) > 1 and isinstance(self.size, tuple):
            return self.told.get(tensor.shape, found[0])
        return found[0] if found else None


def _told(output: _Output) -> Layout | None:
    """Return where a layer of one kind has its channels: its type says so, or the length of its parameters."""
    if output.tensor.ndim != 4:
        return None
    if isinstance(output.module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm):
        return "NCHW"
    if isinstance(output.module, nn.Linear):
        return "NHWC"
    if isinstance(output.module, nn.LayerNorm):  # in some libraries of channels that are first
        *_, channels = output.module.normalized_shape
        axes = [axis for axis in (1, 3) if output.tensor.shape[axis] == channels]
        return None if len(axes) != 1 else "NCHW" if axes == [1] else "NHWC"
    return None


def to_grid(tensor: Tensor, layout: Layout, positions: tuple[int, int] | None = None) -> Tensor:
    """Return a layer's output (or its gradient) as (N, K, u, v).

    Tokens are read as a grid in row-major order, after the class (and register) tokens, which are left out: as one of
    `positions`, by default as the largest square.
    """
    if layout == "NTC":
        n, tokens, channels = tensor.shape
        u, v = positions or (isqrt(tokens),) * 2
        return tensor[:, tokens - u * v :].reshape(n, u, v, channels).permute(0, 3, 1, 2)
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


def _positions(chosen: _Output, outputs: list[_Output], layouts: _Layouts) -> tuple[int, int] | None:
    """Return the rows and columns of positions among tokens, None for the largest square; refuse them if not clear.

    The convolutions before the tokens tell how many positions there are. Without that, register tokens could be taken
    for positions of a small image, and positions of another shape for those of a square.
    """
    tokens, square = chosen.tensor.shape[1], isinstance(layouts.size, int)
    before = outputs[: outputs.index(chosen)]
    last = [output.tensor.shape[2:] for output in before if isinstance(output.module, nn.Conv2d)][-1:]
    if last and 1 < last[0].numel() <= tokens and not is_grid(last[0][0], last[0][-1], layouts.size):
        positions = in_words((last[0][0], last[0][-1]))
        wanted = "a square of them" if square else f"a grid of them over {in_words(layouts.size)} pixels"
        raise SessError(f"layer {chosen.name!r} gives tokens of {positions} positions, and maps need {wanted}")
    grids = {tuple(output.tensor.shape[2:]) for output in before if layouts.of(output.tensor) == "NCHW"}
    unknown_grid = (isqrt(tokens),) * 2 if square else (0, 0)
    u, v = max((grid for grid in grids if prod(grid) <= tokens), key=prod, default=unknown_grid)
    if tokens >= (u + 1) * (v + 1):
        which = (
            f"which of them are the {u} x {v} positions" if u else f"their grid over {in_words(layouts.size)} pixels"
        )
        raise SessError(f"layer {chosen.name!r} gives {tokens} tokens, and {which} is not clear: name another layer")
    return None if square else (u, v)


def _last_read(module: nn.Module, size: Size, candidates: list[_Output]) -> _Output:
    """Return the last of some layers of tokens of which the logits depend on more than one.

    Behind the last attention a head that reads the class token alone depends on no position: there all maps are flat.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda _, __, output: found.update({name: output})

    names = {output.name for output in candidates}
    parameter = next(module.parameters(), torch.zeros(1))
    images = torch.randn(1, 3, *sides(size), generator=torch.Generator().manual_seed(0)).to(parameter)
    with torch.enable_grad(), ExitStack() as stack:
        for name in names:
            stack.enter_context(hooked(module.get_submodule(name), watch(name)))
        logits = module(images.requires_grad_())
    if not logits.requires_grad:
        return candidates[-1]
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    kept = [output for output in candidates if found[output.name].requires_grad]
    slopes = torch.autograd.grad(logits, [found[output.name] for output in kept], weights, allow_unused=True)
    for output, slope in zip(reversed(kept), reversed(slopes), strict=True):
        if slope is not None and (slope.ndim != 3 or int(slope.any(2).sum()) > 1):
            return output
    return candidates[-1]


def find_layer(module: nn.Module, size: Size, layer: str | None) -> Found:
    """Return the layer for class activation maps.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    size : int or (int, int)
        Side of its input, or height and width.
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
    layouts = _Layouts(outputs, size_of(*sides(size)))
    num_classes = logits.shape[1]
    if layer is not None:
        known = [name for name, _ in module.named_modules() if name]
        if layer not in known:
            raise unknown("layer", layer, known)
        found = [output for output in outputs if output.name == layer]
        layout = layouts.of(found[-1].tensor) if found else None
        if layout is None:
            gives = tuple(found[-1].tensor.shape) if found else "no tensor"
            raise SessError(f"layer {layer!r} has no grid of positions to make a map of (it gives {gives})")
        return Found(layer, layout, num_classes, _positions(found[-1], outputs, layouts) if layout == "NTC" else None)

    ends = [i for i, output in enumerate(outputs) if isinstance(output.module, nn.Linear | nn.Conv2d)]
    before = outputs[: ends[-1]] if ends else []
    pooled = {id(output.tensor) for output in before if isinstance(output.module, _POOLS)}
    candidates = [
        output
        for output in before
        if layouts.of(output.tensor) and not isinstance(output.module, _NOTHING) and id(output.tensor) not in pooled
    ]
    norms = [output for output in candidates if output.name.endswith(_TRANSFORMER_NORMS) and _leads(output, outputs)]
    if norms and layouts.of(norms[-1].tensor) != "NCHW":
        candidates = [*candidates, norms[-1]]
    if not candidates:
        raise SessError("found no layer to look at in this model: name one with layer=")
    chosen = _last_read(module, size, candidates) if layouts.of(candidates[-1].tensor) == "NTC" else candidates[-1]
    layout = layouts.of(chosen.tensor)
    assert layout is not None
    positions = _positions(chosen, outputs, layouts) if layout == "NTC" else None
    return Found(chosen.name, layout, num_classes, positions)
