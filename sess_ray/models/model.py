"""A classifier with everything that is needed to explain it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from sess_ray.errors import SessError
from sess_ray.models import cudnn, onednn
from sess_ray.models.copies import copied
from sess_ray.models.groups import Group
from sess_ray.models.heads import known_head
from sess_ray.models.layers import Layout, hooked, to_grid
from sess_ray.models.onednn import TAP
from sess_ray.models.scores import Activation
from sess_ray.models.targets import Targets
from sess_ray.models.tokens import read_alone
from sess_ray.precision import Precision
from sess_ray.products import multiplying
from sess_ray.windows import Size, sides

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Tap:
    """What a scoring pass provides for the base methods.

    Attributes
    ----------
    logits : Tensor, (N, classes) float32
    activations : Tensor, (N, K, u, v) float32
        Output of the chosen layer.
    gradients : callable
        Takes targets (N,) int64 and rows, (n,) int64 or a slice (by default all); returns d(logit of the target)/
        d(activations) of those rows, (n, K, u, v) float32. One backward pass through the head; may be called again.
    pull : callable
        Takes weights (n, classes) and rows; returns d(sum over classes of weight times logit)/d(activations).
    """

    logits: Tensor
    activations: Tensor
    gradients: Callable[..., Tensor]
    pull: Callable[..., Tensor]


@dataclass(frozen=True)
class Model(Targets):
    """A classifier, its preprocessing and its layer for class activation maps; `load_model` makes one.

    Attributes
    ----------
    module : nn.Module
        Maps (N, 3, h, w), of the input's size, to (N, num_classes) logits.
    name : str
    layer : str
        Name of the layer in ``module.named_modules()``.
    layout : {"NCHW", "NHWC", "NTC"}
        The layout of the layer's output.
    positions : (int, int), optional
        For tokens: rows and columns of the positions among them. By default they are the largest square.
    num_classes : int
    input_size : int or (int, int)
        Side of the input, or its height and width if it is not square; `sides` has both in either case.
    mean, std : tuple of 3 floats
        Normalisation of RGB in 0..1.
    classes : tuple of str
        Names of the classes; empty if they are not known.
    aliases : dict
        Further names of classes in lower case, to indices.
    groups : tuple of Group
        Targets that mean several classes, numbered after the classes: group k is target ``num_classes + k``.
    activation : {"softmax", "sigmoid", "none"}
        How logits become probabilities (`sess_ray.models.scores`).
    original : nn.Module, optional
        For a prepared model: `module` in float32, from which `fused` is made.
    notes : tuple of str
        What was done to read the model, as text for people.
    tf32 : bool
        Whether `logits` lets a GPU round the factors of float32 products.
    """

    module: nn.Module
    name: str
    layer: str
    layout: Layout
    num_classes: int
    input_size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    aliases: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    groups: tuple[Group, ...] = ()
    activation: Activation = "softmax"
    original: nn.Module | None = field(default=None, repr=False, compare=False)
    tf32: bool = False
    notes: tuple[str, ...] = ()
    positions: tuple[int, int] | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the input."""
        return sides(self.input_size)

    def prepared(self, device: torch.device, precision: Precision) -> Model:
        """Return a frozen copy on a device, in a precision, channels last; this model is not changed.

        In bfloat16 batch norms keep float32 parameters, because 8 bits are too few for their running statistics.
        """
        original = copied(self.module).eval().requires_grad_(requires_grad=False).to(device).float()
        module = original
        if DTYPES[precision] != torch.float32:
            originals = dict(original.named_modules())
            module = copied(original).to(DTYPES[precision])
            for name, layer in module.named_modules():
                if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                    layer.float().load_state_dict(originals[name].state_dict())
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return replace(self, module=module, original=original, tf32=precision == "tf32")

    @cached_property
    def fused(self) -> nn.Module | None:
        """A module that scores like `module`, but faster; None if there is none. Made on first use."""
        if self.original is None:
            return None
        patches = torch.randn(2, 3, *self.sides, generator=torch.Generator().manual_seed(0))
        patches = patches.to(self.probe()).contiguous(memory_format=torch.channels_last)
        whole = known_head(self.module, self.layer) is not None
        make = onednn.fuse_convolutions if patches.device.type == "cpu" else cudnn.fuse_convolutions
        with multiplying(tf32=False):
            fused = make(self.module, self.original, self.layer, patches, whole=whole)
            alone = read_alone(fused or self.module, self.layer, patches) if self.layout == "NTC" else None
        return alone or fused

    def gridded(self, tensor: Tensor) -> Tensor:
        """Return the layer's output, or its gradient, as (N, K, u, v)."""
        return to_grid(tensor, self.layout, self.positions)

    @property
    def scorer(self) -> nn.Module:
        """The module that scores patches if no gradient goes further back than the layer."""
        return self.fused or self.module

    def logits(self, patches: Tensor) -> Tensor:
        """Score patches, without gradients: (N, 3, h, w) normalised to (N, classes)."""
        with torch.no_grad(), multiplying(tf32=self.tf32):
            return self.scorer(patches)

    def tap(self, patches: Tensor, *, gradients: bool = True) -> Tap:
        """Score patches, with gradients recorded from the chosen layer on.

        The layer's output becomes a leaf that requires a gradient, and nothing before it does, so that autograd
        records only the head.

        Parameters
        ----------
        patches : Tensor, (N, 3, h, w)
            Normalised. Use a prepared model: its parameters must not require gradients.
        gradients : bool
            False if nobody will ask for one: then nothing is recorded.

        Returns
        -------
        Tap
        """
        head = known_head(self.module, self.layer)
        records = gradients and head is None
        leaves: list[Tensor] = []

        def leave(_: nn.Module, __: object, output: Tensor) -> Tensor | None:
            leaf = output.detach()
            leaf.requires_grad = records
            leaves.append(leaf)
            # The clone protects the leaf from layers that work in place.
            return leaf.clone() if records else None

        layer = TAP if hasattr(self.fused, TAP) else self.layer
        with torch.set_grad_enabled(records), hooked(self.scorer.get_submodule(layer), leave):
            logits = self.scorer(patches)
        leaf = leaves[-1]

        def gradients_of(targets: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
            if head is not None:
                return head.gradient(self.module, leaf[rows], logits[rows], targets[rows], self).float()
            if not logits.requires_grad:
                raise SessError(f"{self.name}: {unreached(f'layer {self.layer}')}")
            with torch.enable_grad():
                wanted = self.logit_of(logits[rows], targets[rows])
                gradient = torch.autograd.grad(wanted.sum(), leaf, retain_graph=True)[0][rows]
            return self.gridded(gradient.float())

        def pull(weights: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
            if head is not None:
                return head.pull(self.module, leaf[rows], weights).float()
            (gradient,) = torch.autograd.grad(logits[rows], leaf, weights.to(logits), retain_graph=True)
            return self.gridded(gradient[rows].float())

        activations = self.gridded(leaf.detach().float())
        return Tap(logits.detach().float(), activations, gradients_of, pull)

    def unreached(self, place: Literal["layer", "pixels"]) -> str | None:
        """Return why no gradient comes back from a prepared model's logits to a place; None if one does."""

        def leave(_: nn.Module, __: object, output: Tensor) -> Tensor:
            return output.detach().requires_grad_().clone()

        patches = self.probe()
        with torch.enable_grad(), ExitStack() as stack:
            if place == "layer":
                stack.enter_context(hooked(self.module.get_submodule(self.layer), leave))
            logits = self.module(patches.requires_grad_(place == "pixels"))
        where = f"layer {self.layer}" if place == "layer" else "the pixels"
        return None if logits.requires_grad else unreached(where)

    def probe(self, count: int = 1, size: Size | None = None) -> Tensor:
        """Return patches (count, 3, h, w) of the mean colour, by default as the input, to see how the module reacts."""
        parameter = next(self.module.parameters(), torch.zeros(1))
        return torch.zeros(count, 3, *sides(size or self.input_size), device=parameter.device, dtype=parameter.dtype)

    def weights_sha256(self) -> str:
        """Return the sha256 over the names and bytes of all parameters and buffers."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def unreached(where: str) -> str:
    """Say that no gradient comes back, and why."""
    return f"no gradient comes back from its logits to {where}: its forward runs under no_grad, or detaches"
