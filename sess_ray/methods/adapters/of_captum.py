"""Attributions of pytorch/captum as base methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import captum.attr
import torch
from torch import Tensor

from sess_ray.errors import SessError, unknown
from sess_ray.methods.adapters import ONCE, SIGNS, has_rectifiers, layer_of, module_of, seeded
from sess_ray.models import Model

# Their parameters that the adapter gives, or that are of no use in a job.
GIVEN = {"self", "model", "forward_func", "layer", "inputs", "target", "feature_mask"}
UNUSED = {"additional_forward_args", "return_convergence_delta", "custom_attribution_func", "grad_kwargs", "kwargs"}
UNUSED |= {"show_progress", "verbose", "device_ids", "return_input_shape", "layer_baselines", "layer_mask"}
UNUSED |= {"interpretable_model", "similarity_func", "perturb_func", "attr_dim_summation", "attribute_to_layer_input"}

# What captum leaves to the user: windows of a seventh of 224 pixels. Without strides they are half of one apart.
OURS = {"Occlusion": {"sliding_window_shapes": (3, 32, 32)}}
ONE = {"Saliency", "InputXGradient", "GuidedBackprop", "Deconvolution", "GuidedGradCam", "LRP", "DeepLift"}
ONE |= {"LayerGradCam", "LayerGradientXActivation", "LayerDeepLift", "LayerLRP"}
RECTIFIED = {"GuidedBackprop", "Deconvolution", "GuidedGradCam"}
CHANNELS_FIRST = {"GuidedGradCam", "LayerGradCam"}
# They draw from the generator that all share, or take one patch at a time.
ALONE = {"GradientShap", "LayerGradientShap", "Lime", "KernelShap", "ShapleyValueSampling", "ShapleyValues"}


@dataclass(frozen=True)
class Captum:
    """Attribute the target's logit to pixels, or to the layer, as captum does; sum over colours, or channels."""

    name: str
    tried = True

    def refusal(self, model: Model) -> str | None:
        """Return why the method cannot explain a model, where captum would not say so."""
        if self.name in RECTIFIED and not has_rectifiers(model):
            return "it has no nn.ReLU modules for captum to change"
        if self.name in CHANNELS_FIRST and model.layout != "NCHW":
            return f"captum takes channels first, and layer {model.layer} has them last"
        return None

    def __call__(
        self,
        model: Model,
        patches: Tensor,
        targets: Tensor,
        *,
        generators: list[torch.Generator],
        sign: str = "absolute_value",
        cells: int = 7,
        **options: Any,
    ) -> Tensor:
        """Return maps, (N, u, v)."""
        kind = getattr(captum.attr, self.name)
        built, called = (inspect.signature(function).parameters for function in (kind.__init__, kind.attribute))
        layer = [layer_of(model)] if "layer" in built else []
        attribution = kind(module_of(model), *layer, **{key: options[key] for key in options if key in built})
        given = {key: options[key] for key in options if key in called}
        if given.get("strides", ()) is None:
            channels, *sides = given["sliding_window_shapes"]
            given["strides"] = (channels, *(max(1, side // 2) for side in sides))
        if "feature_mask" in called:
            given["feature_mask"] = squares(patches, cells)
        if "baselines" in called and called["baselines"].default is inspect.Parameter.empty:
            given["baselines"] = torch.zeros_like(patches[:1]).expand(2, -1, -1, -1)  # twice the mean colour

        def attributed(rows: slice) -> Tensor:
            start = patches[rows].detach().clone().requires_grad_()
            with torch.enable_grad():
                return attribution.attribute(start, target=targets[rows], **given).detach()

        if self.name in ALONE:
            found = []
            for row, generator in enumerate(generators):
                with seeded(generator):
                    found.append(attributed(slice(row, row + 1)))
            values = torch.cat(found)
        else:
            values = attributed(slice(None))
        if layer and values.shape[2:] != patches.shape[2:]:
            values = model.gridded(values)
        return SIGNS[sign](values.float().sum(1))


def squares(patches: Tensor, cells: int) -> Tensor:
    """Return which feature each pixel is of, (1, 1, h, w) int64: squares of a grid of cells x cells."""
    rows, columns = (torch.arange(side, device=patches.device) * cells // side for side in patches.shape[2:])
    return (rows[:, None] * cells + columns)[None, None]


def found(name: str) -> tuple[Captum, dict[str, Any], str]:
    """Return a method, its options with their defaults, and its passes where these are one; `SessError` if none."""
    kinds: dict[str, Any] = {other: kind for other, kind in vars(captum.attr).items() if _fits(kind)}
    if name in ("FeaturePermutation", "LayerFeaturePermutation"):
        raise SessError(f"captum:{name} permutes the patches of a batch, so that a map would depend on what shares it")
    if name not in kinds:
        raise unknown("method of captum", name, kinds)
    options = _options(kinds[name].attribute) | _options(kinds[name].__init__)
    options["sign"] = "positive" if name.startswith("Layer") else "absolute_value"
    if "feature_mask" in inspect.signature(kinds[name].attribute).parameters:
        options["cells"] = 7
    return Captum(name), options | OURS.get(name, {}), ONCE if name in ONE else ""


def _fits(kind: Any) -> bool:
    """Say whether something attributes the logit of a target to an input, or to a layer, of one model."""
    if not hasattr(kind, "attribute") or "Permutation" in kind.__name__:
        return False
    built, called = (inspect.signature(function).parameters for function in (kind.__init__, kind.attribute))
    required = {
        parameter.name
        for parameter in (*built.values(), *called.values())
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    return "target" in called and required <= GIVEN | {"baselines", "sliding_window_shapes"}


def _options(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.name not in GIVEN | UNUSED and parameter.default is not parameter.empty
    }
