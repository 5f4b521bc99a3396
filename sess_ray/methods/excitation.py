"""Family B: excitation backprop, which sends probability down through the model instead of a gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sess_ray.errors import SessError, unknown
from sess_ray.methods.registry import register
from sess_ray.models import Model
from sess_ray.models.layers import is_grid

Call = Callable[..., Any]

# In float32 less than any sum of live activations, and its inverse is finite.
EPS = 1e-20


class _Shared(torch.autograd.Function):
    """Each output gives its probability to its inputs in proportion to x times a positive weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, excite: Call) -> Tensor:
        ctx.save_for_backward(x)
        ctx.excite = excite
        return call(x)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().float().clamp(min=0).requires_grad_()
            total = ctx.excite(x)
            (back,) = torch.autograd.grad(total, x, outputs[0].float() / (total.detach() + EPS))
        return x.detach() * back, None, None


class _Passed(torch.autograd.Function):
    """Probability passes through unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call) -> Tensor:
        result = call(x)
        if result is x:
            ctx.mark_dirty(x)
        return result

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return outputs[0], None


class _Split(torch.autograd.Function):
    """The probability of a sum goes to its two terms in proportion to their (positive) values."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, call: Call) -> Tensor:
        # Now, not in the backward pass: sums are often made in place.
        ctx.terms = [term.detach().float().clamp(min=0) for term in (a, b)]
        result = call(a, b)
        if result is a:
            ctx.mark_dirty(a)
        return result

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b = ctx.terms
        share = outputs[0].float() / (a + b + EPS)
        return a * share, b * share, None


_WEIGHTED = {F.conv2d, F.linear}
_AVERAGES = {
    *(F.avg_pool2d, F.adaptive_avg_pool2d, Tensor.mean, torch.mean, Tensor.sum, torch.sum),
}
_SUMS = {Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, Tensor.add, Tensor.add_, torch.add}
_SCALED = {Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, Tensor.mul, torch.mul, Tensor.__truediv__, Tensor.div}
_PASSED = {
    *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    *(F.relu6, F.hardtanh, F.hardtanh_, F.batch_norm, torch.batch_norm),
}
# Autograd's own rule is the right one: the largest takes all, and the rest only move values.
_NATIVE = {
    *(F.max_pool2d, F.adaptive_max_pool2d, torch.max_pool2d, Tensor.amax, torch.amax, torch.cat, torch.concat),
    *(F.dropout, F.dropout2d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout, F.pad),
    *(Tensor.flatten, torch.flatten, Tensor.view, Tensor.reshape, torch.reshape, Tensor.unflatten),
    *(Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze, Tensor.permute, torch.permute),
    *(Tensor.transpose, torch.transpose, Tensor.contiguous, Tensor.clone, Tensor.to, Tensor.float),
    *(Tensor.chunk, torch.chunk, Tensor.split, torch.split, Tensor.__getitem__, Tensor.requires_grad_),
}
# Functions without a rule, and the reason to give; the first one found in this order.
_WITHOUT_RULE = {
    "attention": ("multi_head_attention_forward", "scaled_dot_product_attention", "matmul", "bmm", "softmax"),
    "layer norms": ("layer_norm", "group_norm", "instance_norm"),
}
_NEGATIVE = {
    "gelu": "GELU",
    "gelu_": "GELU",
    "silu": "SiLU",
    "silu_": "SiLU",
    "leaky_relu": "leaky ReLU",
    "elu": "ELU",
    "leaky_relu_": "leaky ReLU",
    "elu_": "ELU",
    "selu": "SELU",
    "mish": "Mish",
    "mish_": "Mish",
    "hardswish": "Hardswish",
    "hardswish_": "Hardswish",
    "prelu": "PReLU",
    "tanh": "tanh",
    "tanh_": "tanh",
}


class Excitation(TorchFunctionMode):
    """While it is active, the rules of excitation backprop are recorded in place of gradients.

    Values are not changed. Rules apply to everything that depends on a tensor that requires a gradient; the names of
    functions without a rule are collected.

    Attributes
    ----------
    uncovered : dict
        Names of functions without a rule, in order of appearance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uncovered: dict[str, None] = {}

    def __torch_function__(
        self, function: Call, _: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        first, rest = (args[0], args[1:]) if args else (kwargs.get("input"), ())
        more = {name: value for name, value in kwargs.items() if args or name != "input"}
        if not torch.is_grad_enabled() or function in _NATIVE:
            return function(*args, **kwargs)
        if _recorded(first):
            result = self._by_rule(function, first, rest, more)
            if result is not None:
                return result
        elif function in _SUMS and rest and _recorded(rest[0]) and not more:
            # A constant plus what is recorded.
            return _Passed.apply(rest[0], lambda x: function(first, x))
        result = function(*args, **kwargs)
        if any(_recorded(one) for one in (result if isinstance(result, tuple | list) else (result,))):
            self.uncovered[getattr(function, "__name__", str(function))] = None
        return result

    @staticmethod
    def _by_rule(function: Call, x: Any, rest: tuple[Any, ...], more: dict[str, Any]) -> Tensor | None:
        def call(x: Tensor) -> Tensor:
            return function(x, *rest, **more)

        if function in _AVERAGES:
            return _Shared.apply(x, call, call)
        if function in _WEIGHTED:
            weight, bias, *others = (*rest, None, None)[: max(2, len(rest))]
            weight = more.get("weight", weight)
            if _recorded(weight) or _recorded(more.get("bias", bias)):
                return None
            positive = weight.detach().float().clamp(min=0)
            named = {name: value for name, value in more.items() if name not in ("weight", "bias")}
            return _Shared.apply(x, call, lambda x: function(x, positive, None, *others, **named))
        if function in _PASSED:
            return _Passed.apply(x, call)
        other = rest[0] if len(rest) == 1 and not more else None
        if function in _SCALED and isinstance(other, int | float) and other > 0:
            return _Passed.apply(x, call)
        if function in _SUMS and isinstance(other, Tensor | int | float):
            if not _recorded(other):
                return _Passed.apply(x, call)
            if isinstance(other, Tensor) and other.shape == x.shape:
                return _Split.apply(x, other, function)
        return None

    def reason(self) -> str | None:
        """Return why the rules do not cover the functions that were run, or None."""
        for name, functions in _WITHOUT_RULE.items():
            if self.uncovered.keys() & set(functions):
                return f"it has {name}, for which excitation backprop has no rule"
        for name in self.uncovered:
            if name in _NEGATIVE:
                return f"it has {_NEGATIVE[name]} units, and excitation backprop needs non-negative activations (ReLU)"
        for name in self.uncovered:
            return f"excitation backprop has no rule for its {name.strip('_')}"
        return None


def _recorded(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _forward(module: nn.Module, layer: str, inputs: Tensor, cut: Call) -> Tensor:
    """Return the logits, the output of a layer replaced by what `cut` makes of it."""
    handle = module.get_submodule(layer).register_forward_hook(lambda _, __, output: cut(output))
    try:
        with torch.enable_grad():
            return module(inputs)
    finally:
        handle.remove()


def _cuts(model: Model, layer: str) -> bool:
    """Say whether all paths from the input to the logits lead through a layer's output."""
    return not _forward(model.module, layer, model.probe().requires_grad_(), Tensor.detach).requires_grad


def _grids(model: Model) -> dict[str, tuple[int, int]]:
    """Return the grids (u, v) of the outputs (1, K, u, v) of layers that run once, by name, in order of completion."""
    grids: dict[str, tuple[int, int]] = {}
    calls: Counter[str] = Counter()

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            calls[name] += 1
            if isinstance(output, Tensor) and output.ndim == 4:
                u, v = output.shape[2:]
                if is_grid(u, v, model.input_size):
                    grids[name] = (u, v)

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in model.module.named_modules() if name]
    try:
        with torch.no_grad():
            model.module(model.probe())
    finally:
        for handle in handles:
            handle.remove()
    return {name: grid for name, grid in grids.items() if calls[name] == 1}


# Found layers, by module (which this does not keep alive) and by what was asked for: they are searched only once.
_FOUND: WeakKeyDictionary[nn.Module, dict[str, str | None]] = WeakKeyDictionary()


def middle_layer(model: Model, layer: str = "") -> str | None:
    """Return the layer at which the map is made: the named one, else the one that is found; None if none is found.

    By default it is the last layer with a grid of at least a sixteenth of the input, along both axes, through which all
    paths to the logits lead: ResNet layer3, VGG-16 features.29, SqueezeNet 1.1 features.7, EfficientNet-Lite0
    blocks.5.0.bn1.

    Raises
    ------
    SessError
        If the named layer does not exist, has no grid of positions or is not on all paths.
    """
    found = _FOUND.setdefault(model.module, {})
    if layer not in found:
        found[layer] = _named(model, layer) if layer else _found(model)
    return found[layer]


def _found(model: Model) -> str | None:
    height, width = model.sides
    fine = [name for name, (u, v) in _grids(model).items() if u * 16 >= height and v * 16 >= width]
    return next((name for name in reversed(fine) if _cuts(model, name)), None)


def _named(model: Model, layer: str) -> str:
    known = [name for name, _ in model.module.named_modules() if name]
    if layer not in known:
        raise unknown("layer", layer, known)
    if layer not in _grids(model):
        raise SessError(f"excitation_backprop: layer {layer!r} gives no grid of positions, or more than once")
    if not _cuts(model, layer):
        raise SessError(f"excitation_backprop: ways to the logits lead past layer {layer!r}: name an enclosing one")
    return layer


def _run(model: Model, layer: str, patches: Tensor) -> tuple[Tensor, Tensor, str | None]:
    """Return a layer's output as a leaf, the logits with the rules recorded from there on, and why they do not hold."""
    leaves: list[Tensor] = []

    def leave(output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        # The clone protects the leaf from layers that work in place.
        return leaves[-1].clone()

    with Excitation() as excitation:
        logits = _forward(model.module, layer, patches, leave)
    return leaves[-1], logits, excitation.reason() or (None if logits.requires_grad else "its logits have no gradient")


def _refusal(model: Model) -> str | None:
    layer = middle_layer(model)
    if layer is None:
        return "it has no layer with a grid of a sixteenth of its input that all ways to the logits lead through"
    return _run(model, layer, model.probe())[2]


@register(
    "excitation_backprop",
    family="B",
    reaches="nothing",
    paper="Zhang et al., Excitation Backprop, ECCV 2016",
    passes="1 forward + head backward",
    check=_refusal,
)
def excitation_backprop(model: Model, patches: Tensor, targets: Tensor, *, layer: str = "") -> Tensor:
    """Compute the probability that a walk from the target down excitatory connections passes each position of a layer.

    A unit passes its probability to its inputs in proportion to x w, for x > 0 and w > 0; biases get none. Rectifiers
    and batch norms pass it through, a maximum passes it to the largest input, and averages and sums (skips) pass it to
    their terms in proportion to their values. The map sums to 1, minus what is lost at units without a positive input.

    For a group of classes the walk starts at each class with its share of the group's probability.

    Where activations may be negative (after a linear bottleneck), negative values count as 0. `layer` is a name as in
    ``named_modules()``; by default the last one with a grid of at least a sixteenth of the input. The benchmark of
    facebookresearch/TorchRay takes layer3 of ResNet-50, which is the default, and features.23 (pool4) of VGG-16, where
    the default is features.29.
    """
    chosen = middle_layer(model, layer)
    if chosen is None:
        raise SessError(f"excitation_backprop cannot explain {model.name}: {_refusal(model)}")
    leaf, logits, reason = _run(model, chosen, patches)
    if reason:
        raise SessError(f"excitation_backprop cannot explain {model.name} from layer {chosen!r} on: {reason}")
    wanted = model.shares(logits.detach(), targets).to(logits)
    # Never negative, so no ReLU is needed after the sum.
    return torch.autograd.grad(logits, leaf, wanted)[0].float().sum(1)
