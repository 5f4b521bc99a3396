"""Sanity checks: whether maps change with the model's weights, and with the class that is explained.

Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from sess_ray.errors import SessError, unknown
from sess_ray.metrics.localization import min_max
from sess_ray.models import Model
from sess_ray.models.copies import copied

Kind = Literal["cascading", "independent"]
KINDS = get_args(Kind)
Window = Literal["uniform", "gaussian"]
# What scikit-image takes for the two windows of SSIM, and the side of each: the second as Wang et al. (2004) have it.
WINDOWS: dict[Window, tuple[dict[str, Any], int]] = {
    "uniform": ({"win_size": 7}, 7),
    "gaussian": ({"gaussian_weights": True}, 11),
}


@dataclass(frozen=True)
class Similarity:
    """How alike two maps are.

    Attributes
    ----------
    ssim : float
        Structural similarity of the maps, each stretched to 0..1; 1 for equal maps.
    spearman : float
        Rank correlation of their pixels, -1..1; 0 if a map is constant.
    """

    ssim: float
    spearman: float


def randomized(model: Model, kind: Kind, steps: int = 10, seed: int = 0) -> Iterator[tuple[str, Model]]:
    """Re-initialise a model's layers from the output downwards.

    A layer is a module that owns parameters itself; layers are in the order of `named_modules`. A layer's new weights
    depend only on the seed and its name, so they are the same in all steps and in both kinds. Layers with a
    `reset_parameters` are initialised by it, which also resets a batch norm's running statistics to mean 0 and variance
    1; parameters of other layers become normal, with mean 0 and the standard deviation that they had.

    Parameters
    ----------
    model : Model
        It is not changed.
    kind : {"cascading", "independent"}
        Whether a step re-initialises a layer and all above it, or that layer alone.
    steps : int
        Maximum number of steps, 2 or more. If there are more layers, evenly spaced ones are chosen, the first and the
        last among them, so that the last step of ``cascading`` has re-initialised the whole model.
    seed : int

    Returns
    -------
    iterator of (str, Model)
        Name of the layer reached, empty for the module itself, and a copy of the model with new weights, made on
        demand.

    Examples
    --------
    >>> from sess_ray import load_model
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> model = load_model(net, layer="2", input_size=32)
    >>> [name for name, _ in randomized(model, "cascading")]
    ['2', '0']
    """
    if kind not in KINDS:
        raise unknown("kind of randomisation", kind, KINDS)
    if steps < 2:
        raise SessError(f"steps is {steps}: use 2 or more")
    layers = [name for name, layer in model.module.named_modules() if _owned(layer)][::-1]
    reached = np.linspace(0, len(layers) - 1, min(steps, len(layers))).round().astype(int).tolist()
    chosen = ((layers[at], layers[: at + 1] if kind == "cascading" else [layers[at]]) for at in reached)
    return ((name, _reinitialized(model, names, seed)) for name, names in chosen)


def _owned(layer: nn.Module) -> list[nn.Parameter]:
    return list(layer.parameters(recurse=False))


def _held(layer: nn.Module) -> list[torch.Tensor]:
    return [*_owned(layer), *layer.buffers(recurse=False)]


def _reinitialized(model: Model, names: Sequence[str], seed: int) -> Model:
    module = copied(model.module)
    for name in names:
        _reinitialize(module.get_submodule(name), f"{seed} {name}")
    return replace(model, module=module)


@torch.no_grad()
def _reinitialize(layer: nn.Module, key: str) -> None:
    """Give a layer new weights that depend only on the key."""
    # A copy on the CPU: the same numbers on every device, and what lies inside of the layer is not touched.
    fresh = copied(layer).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "little"))
        reset: Any = getattr(fresh, "reset_parameters", None)
        if reset is not None:
            reset()
        else:
            for parameter in _owned(fresh):
                parameter.normal_(0, parameter.std(correction=0).item())
    for own, new in zip(_held(layer), _held(fresh), strict=True):
        own.copy_(new)


def similarity(
    first: np.ndarray, second: np.ndarray, window: Window = "uniform", data_range: float = 1.0
) -> Similarity:
    """Compare two maps.

    Parameters
    ----------
    first, second : ndarray, (H, W)
        At least as large as the window; NaN counts as 0. A constant map becomes all zeros.
    window : {"uniform", "gaussian"}
        How SSIM weights pixels: 7 x 7 equally, or by a Gaussian (sigma 1.5, 11 x 11) as in the authors' notebooks.
    data_range : float
        For SSIM, the largest possible difference of values. Maps range from 0 to 1; the notebooks leave scikit-image's
        default of 2.

    Returns
    -------
    Similarity

    Raises
    ------
    SessError
        If the maps differ in size or are too small, or scikit-image is missing.

    Examples
    --------
    >>> ramp = np.arange(100.0).reshape(10, 10)
    >>> similarity(ramp, 2 * ramp + 1)
    Similarity(ssim=1.0, spearman=1.0)
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise SessError("similarity of maps: needs scikit-image: install sess-ray[evaluate]") from error
    if window not in WINDOWS:
        raise unknown("window of SSIM", window, WINDOWS)
    settings, side = WINDOWS[window]
    if first.shape != second.shape or min(first.shape) < side:
        raise SessError(f"maps {first.shape} and {second.shape}: give two of one size, {side} x {side} or more")
    one, other = min_max(first), min_max(second)
    compare: Any = structural_similarity
    return Similarity(float(compare(one, other, data_range=data_range, **settings)), _spearman(one, other))


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    one, other = _centred_ranks(first), _centred_ranks(second)
    scale = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / scale) if scale else 0.0


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks minus their mean, those of equal values averaged, (values.size,)."""
    _, places, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ranks = counts.cumsum() - (counts - 1) / 2
    return ranks[places] - (values.size + 1) / 2


def parameter_randomisation(
    model: Model,
    explain: Callable[[Model], Sequence[np.ndarray]],
    kind: Kind,
    steps: int = 10,
    seed: int = 0,
    window: Window = "uniform",
) -> Iterator[tuple[str, list[Similarity]]]:
    """Compare maps of a model with maps of the same model after randomisation.

    Maps that show what the model has learnt lose their similarity as layers are re-initialised; those of an edge
    detector keep it.

    Parameters
    ----------
    model : Model
        Stays as it is.
    explain : callable
        Takes a model and returns its maps (H, W) of some images, for the same classes whatever the model predicts.
    kind : {"cascading", "independent"}
    steps, seed : int
        As `randomized` takes them.
    window : {"uniform", "gaussian"}
        As `similarity` takes it.

    Returns
    -------
    iterator of (str, list of Similarity)
        Name of the layer reached, and for each map its similarity to the original model's map. A single map of a random
        model may be similar by chance, so use many images.
    """
    changed = randomized(model, kind, steps, seed)
    maps = explain(model)
    return ((name, target_sensitivity(maps, explain(other), window)) for name, other in changed)


def target_sensitivity(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], window: Window = "uniform"
) -> list[Similarity]:
    """Compare maps in pairs, such as those of two classes, image by image: maps of two classes should differ.

    Parameters
    ----------
    first, second : sequence of ndarray (H, W)
        Two sequences of equal length.
    window : {"uniform", "gaussian"}
        As `similarity` takes it.
    """
    return [similarity(*pair, window) for pair in zip(first, second, strict=True)]
