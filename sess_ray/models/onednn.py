"""The scoring pass as oneDNN runs it best on a CPU.

In front of the tapped layer nothing needs a gradient: there batch norms fold into the convolution before them,
activations and residual sums into the convolution that they follow, and its weights are laid out once and not in every
call. The classifier stays the same function; its sums are rounded in another order.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TAP = "tapped"  # of a fused module: the identity that gives what the tapped layer gives
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of logits, as a share of the largest

_Node = Any  # of a graph; what torch.fx says of its arguments, a type checker cannot use
Activation = tuple[str, tuple[float, ...]]  # oneDNN's name, and its bounds
_PLAIN: Activation = ("none", ())
_FUNCTIONS: dict[Any, Activation] = {
    F.relu: ("relu", ()),
    torch.relu: ("relu", ()),
    F.relu6: ("hardtanh", (0.0, 6.0)),
    F.silu: ("swish", ()),
    F.hardswish: ("hardswish", ()),
}
_MODULES: dict[type, Callable[[Any], Activation]] = {
    nn.Identity: lambda _: _PLAIN,
    nn.ReLU: lambda _: ("relu", ()),
    nn.ReLU6: lambda _: ("hardtanh", (0.0, 6.0)),
    nn.Hardtanh: lambda layer: ("hardtanh", (layer.min_val, layer.max_val)),
    nn.SiLU: lambda _: ("swish", ()),
    nn.Hardswish: lambda _: ("hardswish", ()),
}
_SUMS = (operator.add, operator.iadd, torch.add)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)


def fuse_convolutions(
    plain: nn.Module, original: nn.Module, layer: str, probe: Tensor, *, whole: bool
) -> fx.GraphModule | None:
    """Return a module that scores as `plain` does, but faster.

    Parameters
    ----------
    plain : nn.Module
        On a CPU, in evaluation mode, in the precision of scoring.
    original : nn.Module
        The same in float32.
    layer : str
        The tapped layer. What it gives is what the submodule `TAP` gives.
    probe : Tensor, (N, 3, h, w)
        Patches, of any pixels, to see what sizes layers get and whether scores stay.
    whole : bool
        Whether also what is behind the layer needs no gradient.

    Returns
    -------
    GraphModule or None
        None where the way through the module depends on its input, or where oneDNN gives other scores.
    """
    try:
        module = Fusion(plain, original, layer, probe, whole=whole).module
        with torch.no_grad():
            wanted, given = plain(probe).float(), module(probe).float()
    except Exception:  # any module may come: what torch.fx or oneDNN does not take is scored as it is
        return None
    alike = (wanted - given).abs().max() <= TOLERANCES[probe.dtype] * wanted.abs().max()
    return module if alike else None


class _Convolution(nn.Module):
    """activation(convolution(x)), or activation(convolution(x) + other) in the memory of the other, in one call."""

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype, shape: list[int], activation: Activation) -> None:
        super().__init__()
        self.shape = shape
        self.geometry = (layer.padding, layer.stride, layer.dilation, layer.groups)
        self.weight = self._laid_out(layer.weight.detach().to(dtype))
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.activation, self.bounds = activation

    def _laid_out(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, self.shape)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        settled = (self.weight, self.bias, *self.geometry)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *settled, self.activation, self.bounds, "")
        activation = None if self.activation == "none" else self.activation
        return torch.ops.mkldnn._convolution_pointwise_(other, x, *settled, "add", 1.0, activation, self.bounds, "")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "weight": self.weight.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.weight = self._laid_out(self.weight)


class _Tracer(fx.Tracer):
    """Follows a module down to layers that are not made of others, and notes what the tapped layer gives."""

    def __init__(self, layer: str = "") -> None:
        super().__init__()
        self.layer = layer
        self.tapped: _Node | None = None

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        # timm's batch norm has the activation behind it as a child.
        return isinstance(module, nn.BatchNorm2d) or not any(module.children()) or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, *arguments: Any) -> Any:
        output = super().call_module(module, *arguments)
        if self.path_of_module(module) == self.layer:
            self.tapped = output.node
        return output


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape that each node gives, as `ShapeProp` does; that one imports sympy."""

    def run_node(self, node: _Node) -> Any:
        result = super().run_node(node)
        if isinstance(result, Tensor):
            node.meta["shape"] = result.shape
        return result


class Fusion:
    """The graph of a module, in which each convolution takes in what follows it."""

    convolution: type[nn.Module] = _Convolution

    def __init__(self, plain: nn.Module, original: nn.Module, layer: str, probe: Tensor, *, whole: bool) -> None:
        tracer = _Tracer(layer)
        self.graph = tracer.trace(plain)
        self.module = fx.GraphModule(plain, self.graph)
        with torch.no_grad():
            _Shapes(self.module).run(probe)
        self.layers = dict(original.named_modules())
        self.dtype = probe.dtype
        assert tracer.tapped is not None
        self.tapped = tracer.tapped
        for node in list(self.graph.nodes):
            if isinstance(self._layer(node), _NOTHING) and node is not self.tapped:
                node.replace_all_uses_with(node.args[0])
                self.graph.erase_node(node)
        self.recorded = set() if whole else _behind(self.tapped)
        for node in list(self.graph.nodes):
            layer_of_node = self._layer(node)
            if isinstance(layer_of_node, nn.Conv2d) and node not in self.recorded:
                self._grow(node, layer_of_node)
        self.module.add_module(TAP, nn.Identity())
        with self.graph.inserting_after(self.tapped):
            tap = self.graph.call_module(TAP, (self.tapped,))
        self.tapped.replace_all_uses_with(tap, delete_user_cb=lambda user: user is not tap)
        self.graph.lint()
        self.module.delete_all_unused_submodules()
        self.module.recompile()

    def _layer(self, node: _Node | None) -> nn.Module | None:
        return self.layers.get(str(node.target)) if node and node.op == "call_module" else None

    def _next(self, node: _Node) -> _Node | None:
        """Return what takes the output of a node, if nothing else does and it needs no gradient."""
        if node is self.tapped or len(node.users) != 1:
            return None
        [user] = node.users
        return None if user in self.recorded else user

    def _grow(self, start: _Node, convolution: nn.Conv2d) -> None:
        """Replace a convolution and what follows it by one layer."""
        group, inputs, activation = [start], [start.args[0]], _PLAIN
        shape = start.args[0].meta["shape"]
        norm = self._layer(self._next(start))
        if isinstance(norm, nn.BatchNorm2d):
            behind = _activation(getattr(norm, "act", nn.Identity()))
            if behind is None:
                return
            group += start.users
            convolution, activation = fuse_conv_bn_eval(convolution, norm), behind
        if type(convolution).forward is not nn.Conv2d.forward or convolution.padding_mode != "zeros":
            if len(group) > 1:  # timm's, which pads in its own way, takes in the batch norm alone
                convolution = convolution.to(self.dtype)
                self._replace(group, inputs, nn.Sequential(convolution, getattr(norm, "act", nn.Identity())))
            return
        if activation == _PLAIN:
            other = self._summand(self._next(group[-1]), group[-1])
            if other and other is not start.args[0]:
                inputs.append(other)
                group += group[-1].users
            follower = self._next(group[-1])
            found = _FUNCTIONS.get(follower.target) if follower else None
            found = found or _activation(self._layer(follower))
            if found:
                activation = found
                group += group[-1].users
        self._replace(group, inputs, self.convolution(convolution, self.dtype, list(shape), activation))

    def _summand(self, node: _Node | None, one: _Node) -> _Node | None:
        """Return what a node adds to `one`, if it is no longer needed: the sum takes its memory."""
        if node is None or node.target not in _SUMS or node.kwargs:
            return None
        others = [summand for summand in node.args if summand is not one]
        if len(others) != 1 or not isinstance(others[0], fx.Node):
            return None
        [other] = others
        layer = self.module.get_submodule(str(other.target)) if other.op == "call_module" else None
        fresh = isinstance(layer, (self.convolution, nn.BatchNorm2d, nn.MaxPool2d)) and other is not self.tapped
        alike = other.meta["shape"] == node.meta["shape"]
        return other if fresh and alike and all(user <= node for user in other.users) else None

    def _replace(self, group: list[_Node], inputs: list[Any], layer: nn.Module) -> None:
        name = f"fused_{group[0].name}"
        self.module.add_module(name, layer)
        with self.graph.inserting_after(group[-1]):
            node = self.graph.call_module(name, tuple(inputs))
        node.meta = group[-1].meta
        group[-1].replace_all_uses_with(node)
        if self.tapped is group[-1]:
            self.tapped = node
        for taken in reversed(group):
            self.graph.erase_node(taken)


def _activation(layer: nn.Module | None) -> Activation | None:
    entry = _MODULES.get(type(layer))
    return entry(layer) if entry else None


def _behind(node: _Node) -> set[_Node]:
    """Return all nodes that depend on a node."""
    found: set[_Node] = set()
    front = [node]
    while front:
        for user in front.pop().users:
            if user not in found:
                found.add(user)
                front.append(user)
    return found
