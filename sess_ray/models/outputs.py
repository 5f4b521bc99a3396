"""What a module of the user's own gives, made logits: no wrapper around it, one row of them for each image.

A probe runs a few noisy images through it, and what is changed is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sess_ray.errors import SessError
from sess_ray.models.copies import copied
from sess_ray.models.layers import hooked
from sess_ray.models.reading import PROBES, Reading, Step, in_colour, left_alone, probes, replaced, run
from sess_ray.models.scores import Activation, probabilities
from sess_ray.windows import Size

HEADLESS = "has no classifier and gives features, not classes: give one with its head"
HEADS = ("head", "fc", "classifier", "heads")
# Autograd's functions that only move values, or change their type.
_MOVES = (
    "View",
    "UnsafeView",
    "Reshape",
    "ReshapeAlias",
    "Squeeze",
    "Unsqueeze",
    "Clone",
    "ToCopy",
    "Alias",
    "Select",
    "Slice",
)
_LINEAR = ("Addmm", "Mm", "Convolution")  # the functions of linear layers, which bound nothing
_UNDO: dict[str, Step]


@dataclass(frozen=True)
class Readable:
    """A module that maps (N, 3, S, S) to logits (N, classes), what makes probabilities of them, and what was done."""

    module: nn.Module
    activation: Activation
    notes: tuple[str, ...] = ()


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside of what torch.compile, DataParallel and their like put around it."""
    inner = getattr(module, "_orig_mod", None)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = module.module
    return unwrapped(inner) if isinstance(inner, nn.Module) else module


def in_full_precision(module: nn.Module) -> nn.Module:
    """Return a module whose weights are float32: itself where they are."""
    other = any(weight.is_floating_point() and weight.dtype != torch.float32 for weight in module.state_dict().values())
    return copied(module).float() if other else module


def refuse_opaque(module: nn.Module, name: str) -> None:
    """Raise `SessError` where a module has no layers to look at, no gradients or no classes."""
    parts = [*module.modules()]
    if any(isinstance(part, torch.jit.ScriptModule) for part in parts):
        raise SessError(f"{name} is TorchScript, which hides its layers: give the module that it was made of")
    if any(base.__module__.startswith("torch.export") for part in parts for base in type(part).__mro__):
        raise SessError(f"{name} is exported, which leaves no layers: give the module that it was made of")
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise SessError(f"{name} is on the device meta, where weights have no values: load them first")
    if any("quantized" in type(part).__module__.split(".") for part in parts):
        raise SessError(f"{name} is quantised and has no gradients: give the model as it was before")
    if getattr(module, "num_classes", None) == 0:
        raise SessError(f"{name} {HEADLESS}")


def refuse_towers(module: nn.Module) -> None:
    """Raise `SessError` where a module tells images by texts, whose encoder is no classifier of images."""
    for text, given in (("get_text_features", "hf:NAME_OR_FOLDER"), ("encode_text", "open_clip:NAME/TAG")):
        if hasattr(module, text):
            raise SessError(
                f"{type(module).__name__} compares images with texts: give it by name, {given}, with --prompts FILE"
                " (prompts=)"
            )


def as_logits(module: nn.Module, name: str, size: Size, activation: Activation | None) -> Readable:
    """Return a module that gives logits, and what makes probabilities of them.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode. It stays as it is.
    name : str
        How it is called in messages.
    size : int or (int, int)
        Side of its input, or height and width.
    activation : {"softmax", "sigmoid", "none"} or None
        As `load_model` takes it; None for what the probe finds.

    Raises
    ------
    SessError
        If the module does not take images of this size, or gives what may be read in two ways.
    """
    given, images, notes = activation, probes(module, size), []
    module = left_alone(module, images)
    coloured, found = in_colour(module, images)
    if coloured is not module:
        notes.append("it takes one channel: images are made grey, 0.299 R + 0.587 G + 0.114 B")
    module, found = _in_rows(coloured, images, found, name)
    if given != "none":
        _refuse_odd_scales(found, name, activation)
    own = _own_activation(found, name, sure=given is not None)
    if given == "none":
        refuse_scores(found, name)
    elif own and given not in (None, own) and found.shape[1] > 1:
        raise SessError(
            f"{name} ends with a {own} of its own, and a {given} of that is no probability: leave activation out, or"
            " use none"
        )
    if own and given in (None, own):
        module = _without_last(module, images, found, own) or Reading(module, _UNDO[own])
        notes.append(f"its own {own} is taken off and put on again: gradients are those of the logits in front of it")
        activation = own
    if found.shape[1] == 1:
        if activation == "softmax":
            raise SessError(f"{name} gives one logit, of which a softmax is always 1: use activation sigmoid")
        module = _two(module, images, activation)
        activation = activation or "sigmoid"
        notes.append("its one logit z is two classes, whose logits are -z and z: class 0 is that class 1 is not there")
    return Readable(module, activation or "softmax", tuple(notes))


def _in_rows(module: nn.Module, images: Tensor, found: Any, name: str) -> tuple[nn.Module, Tensor]:
    """Return a module that gives a row for each image, and its rows for images for which the module gives `found`."""
    _refuse_headless(module, images, found, name)
    pick = _picking(found, name)
    if pick:
        module = Reading(module, pick)
        found = pick(found)
    if not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise SessError(f"{name} gives {kind}, which is neither logits nor probabilities: leave out what makes it so")
    if found.ndim not in (1, 2) or len(found) != PROBES:
        raise SessError(
            f"{name} gives {tuple(found.shape)} for {PROBES} images: it must map N x 3 x H x W to N x classes logits"
        )
    rows = partial(torch.reshape, shape=(-1, found[0].numel()))
    if found.ndim == 1 or run(module, images[:1]).ndim == 1:  # as squeeze() leaves it
        module = Reading(module, rows)
    return module, rows(found)


def refuse_scores(found: Tensor, name: str) -> None:
    """Raise `SessError` where what a module gives can be no probabilities."""
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise SessError(
            f"activation none takes what {name} gives as probabilities, and it gives some from"
            f" {found.min().item():.3g} to {found.max().item():.3g}: use softmax or sigmoid"
        )


# -- which of what a module gives are the logits


def _named_parts(found: object) -> dict[str, Any] | None:
    """Return the parts of a mapping or a dataclass by name, of a sequence by number; None for what has none."""
    if isinstance(found, Tensor):
        return None
    if isinstance(found, Mapping):
        return {str(name): part for name, part in found.items()}
    if is_dataclass(found):
        return {field.name: getattr(found, field.name) for field in fields(found)}
    if isinstance(found, tuple) and hasattr(found, "_asdict"):
        return dict(found._asdict())
    if isinstance(found, tuple | list):
        return {str(number): part for number, part in enumerate(found)}
    return {"logits": found.logits} if hasattr(found, "logits") else {}


@dataclass(frozen=True)
class _Part:
    """Takes a part of what a module gives, by its name or number."""

    name: str

    def __call__(self, found: object) -> Any:
        parts = _named_parts(found)
        return None if parts is None else parts[self.name]


def _picking(found: object, name: str) -> _Part | None:
    parts = _named_parts(found)
    if parts is None:
        return None
    if isinstance(parts.get("logits"), Tensor):
        return _Part("logits")
    rows = [key for key, part in parts.items() if isinstance(part, Tensor) and part.ndim == 2 and len(part) == PROBES]
    tensors = [key for key, part in parts.items() if isinstance(part, Tensor)]
    # Of several tensors with names one may well be an embedding.
    if len(rows) == 1 and (len(tensors) == 1 or isinstance(found, tuple | list)):
        return _Part(rows[0])
    if "last_hidden_state" in parts:  # as transformers calls what a backbone gives
        raise SessError(f"{name} {HEADLESS}")
    listed = ", ".join(tensors) or type(found).__name__
    raise SessError(
        f"{name} gives {len(tensors)} tensors ({listed}), and nothing says which are the logits:"
        " wrap it in a module that returns them"
    )


def _refuse_headless(module: nn.Module, images: Tensor, found: object, name: str) -> None:
    """Raise `SessError` where a module ends with an empty head."""
    ends: list[object] = []
    head = next((getattr(module, part) for part in HEADS if isinstance(getattr(module, part, None), nn.Module)), None)
    if isinstance(head, nn.Identity) or (isinstance(head, nn.Sequential) and not len(head)):
        with hooked(head, lambda _, __, output: ends.append(output)):
            found = run(module, images)
    if any(end is found for end in ends):
        raise SessError(f"{name} {HEADLESS}")


# -- an activation of its own


def _own_activation(found: Tensor, name: str, *, sure: bool) -> Activation | None:
    """Return what activation a module ends with, as its values and its last function tell; None for logits."""
    values = found.detach().float()
    if not bool(((values >= 0) & (values <= 1)).all()):
        return None
    if values.shape[1] > 1 and bool(((values.sum(1) - 1).abs() < 1e-3).all()):
        return "softmax"
    function = _last_function(found)
    if _last_function(found, also=("Mul", "Div")) in _LINEAR:  # a layer's, scaled or not
        return None
    if function == "Sigmoid" or (function == "Softmax" and values.shape[1] == 1):
        return "sigmoid"  # of two logits a softmax is the sigmoid of their difference
    if sure or values.min() == values.max():
        return None
    raise SessError(
        f"what {name} gives is between 0 and 1 for all that it was shown: say with activation= (--activation) whether"
        " it is probabilities (none), or logits (softmax, sigmoid)"
    )


def _refuse_odd_scales(found: Tensor, name: str, activation: Activation | None) -> None:
    """Raise `SessError` where what a module gives is made of probabilities in a way that no activation undoes."""
    values = found.detach().double()
    if values.shape[1] > 1 and bool((values >= 0).all() & ((values.sum(1) - 100).abs() < 0.1).all()):
        raise SessError(f"{name} gives percentages, which add up to 100: let it return logits, or divide them by 100")
    if _last_function(found) == "LogSigmoid":
        raise SessError(f"{name} ends with the logarithm of a sigmoid: let it return logits, in front of that")
    if activation == "sigmoid" and values.shape[1] > 1 and bool((values.logsumexp(1).abs() < 1e-3).all()):
        raise SessError(
            f"{name} ends with a log_softmax of its own, and a sigmoid of that is no probability: leave activation out"
        )


def _last_function(found: Tensor, also: tuple[str, ...] = ()) -> str:
    """Return the name of the function that a tensor comes from, as autograd has it; empty where it has none.

    Moves do not count, nor do the functions named in `also`.
    """
    node = found.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name not in (*_MOVES, *also):
            return name
        node = node.next_functions[0][0]
    return ""


def _without_last(module: nn.Module, images: Tensor, found: Tensor, own: Activation) -> nn.Module | None:
    """Return a copy that lacks the activation at its end; None where that is no layer of its own."""
    kinds = {"softmax": nn.Softmax, "sigmoid": nn.Sigmoid}
    names = [name for name, layer in module.named_modules() if isinstance(layer, kinds[own])]
    for name in reversed(names):
        changed = replaced(module, name, nn.Identity())
        logits = run(changed, images)
        alike = logits.shape == found.shape
        if alike and torch.allclose(probabilities(logits, (), own), found.float(), atol=1e-5):
            return changed
    return None


def _log(found: Tensor) -> Tensor:
    return found.float().clamp(min=torch.finfo(torch.float32).tiny).log()


def _log_odds(found: Tensor) -> Tensor:
    return found.float().logit(eps=1e-7)


_UNDO = {"softmax": _log, "sigmoid": _log_odds}


# -- one logit


def _both(logits: Tensor) -> Tensor:
    return torch.cat([-logits, logits], 1)


def _both_probabilities(found: Tensor) -> Tensor:
    return torch.cat([1 - found, found], 1)


def _two(module: nn.Module, images: Tensor, activation: Activation | None) -> nn.Module:
    """Return a module with two classes for one logit; where its last layer is linear, with two rows in that."""
    if activation == "none":
        return Reading(module, _both_probabilities)
    wanted = _both(run(module, images))
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if linear:
        last = module.get_submodule(linear[-1])
        if isinstance(last, nn.Linear | nn.Conv2d) and len(last.weight) == 1:
            changed = replaced(module, linear[-1], _doubled(last))
            try:
                logits = changed(images)
            except Exception:  # what follows the layer counts on one row
                logits = None
            if (
                isinstance(logits, Tensor)
                and logits.shape == wanted.shape
                and torch.allclose(logits, wanted, atol=1e-5)
            ):
                return changed
    return Reading(module, _both)


def _doubled(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Return a layer that gives -z and z for the one z of a linear layer."""
    double = copied(layer)
    double.weight = nn.Parameter(torch.cat([-layer.weight.detach(), layer.weight.detach()]))
    if layer.bias is not None:
        double.bias = nn.Parameter(torch.cat([-layer.bias.detach(), layer.bias.detach()]))
    if isinstance(double, nn.Linear):
        double.out_features = 2
    else:
        double.out_channels = 2
    return double
