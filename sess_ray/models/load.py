"""Loading a classifier by name, with its weights and their metadata."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sess_ray.access import public, public_text, shown
from sess_ray.errors import SessError, unknown
from sess_ray.models.layers import find_layer
from sess_ray.models.model import Model
from sess_ray.models.scores import Activation
from sess_ray.models.vision import torchvision
from sess_ray.own import imported
from sess_ray.small import read_small

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Source:
    """How to build an architecture ("pretrained" or "empty", number of classes or None) and what its metadata say."""

    build: Callable[[str, int | None], nn.Module]
    input_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    classes: tuple[str, ...] = ()


def load_model(
    model: str | nn.Module | Model,
    weights: str | Mapping[str, Tensor] | None = None,
    layer: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    input_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    activation: Activation | Literal["auto"] = "auto",
) -> Model:
    """Load a classifier.

    Parameters
    ----------
    model : str or nn.Module or Model
        A torchvision or timm classifier by name (``timm/NAME`` where both have one), ``package.module:function`` of
        your own, which returns a module or a `Model`, or a module.
    weights : str or dict, optional
        A safetensors file or a state dict saved by ``torch.save``, at a path or any URL that fsspec opens, or the
        state dict itself; ``"random"`` for untrained weights. By default the pretrained weights of
        torchvision or timm, downloaded. A file is read as tensors only: it cannot run code.
    layer : str, optional
        Name of the layer that class activation maps look at; found by itself by default.
    class_names : sequence of str, optional
        Names of the classes, in order.
    input_size : int, optional
    mean, std : sequence of 3 floats, optional
        Preprocessing. By default what the weights' metadata say, or 224 and ImageNet's.
    activation : {"auto", "softmax", "sigmoid", "none"}
        What makes probabilities of the logits: ``softmax`` where classes exclude one another, ``sigmoid`` where each is
        a label that may be there, ``none`` where the model's outputs are probabilities. By default what the model's
        own configuration says, else softmax.

    Returns
    -------
    Model
        In evaluation mode.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    if activation not in (*get_args(Activation), "auto"):
        raise unknown("activation", activation, (*get_args(Activation), "auto"))
    if isinstance(model, Model):
        return model if activation == "auto" else replace(model, activation=activation)
    name, source = _find(model)
    if isinstance(source, Model):
        if weights is not None:
            raise SessError(f"{name} brings its own weights: leave --weights out")
        return source if activation == "auto" else replace(source, activation=activation)
    module = _weigh(name, source, weights)
    module.eval()
    size = input_size or source.input_size
    layer, layout, num_classes = find_layer(module, size, layer)
    classes = tuple(class_names) if class_names is not None else source.classes
    if class_names is not None and len(classes) != num_classes:
        raise SessError(f"{len(classes)} class names for the {num_classes} classes of {name}")
    if len(classes) != num_classes:
        classes = ()
    return Model(
        module=module,
        name=name,
        layer=layer,
        layout=layout,
        num_classes=num_classes,
        input_size=size,
        mean=tuple(mean or source.mean),
        std=tuple(std or source.std),
        classes=tuple(entry.split(",")[0].strip() for entry in classes),
        aliases=_aliases(classes),
        activation=_activation(module) if activation == "auto" else activation,
    )


def _activation(module: nn.Module) -> Activation:
    """Return what a model's own configuration says, as transformers writes it; softmax where it says nothing."""
    kind = getattr(getattr(module, "config", None), "problem_type", None)
    return "sigmoid" if kind == "multi_label_classification" else "softmax"


def model_table() -> list[tuple[object, ...]]:
    """Return a row for each classifier that can be built by name, under a header: name, side of its input, library."""
    ours = [(name, _torchvision_source(name).input_size, "torchvision") for name in _torchvision_names()]
    return [("model", "input", "library"), *ours, *(_timm_row(name) for name in _timm_names())]


def _timm_row(name: str) -> tuple[object, ...]:
    import timm

    configuration = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return f"timm/{name}", configuration.input_size[-1] if configuration else "", "timm"


def _find(model: str | nn.Module) -> tuple[str, _Source | Model]:
    if isinstance(model, nn.Module):
        module = model
        return type(module).__name__, _Source(lambda *_: module)
    if ":" in model:
        return _own(model)
    if model in _torchvision_names():
        return model, _torchvision_source(model)
    bare = model.removeprefix("timm/")
    if bare.split(".")[0] in _timm_names():
        return model, _timm_source(bare)
    more = "" if _timm_names() else " (timm's models need: pip install timm)"
    raise unknown("model", model, {*_torchvision_names(), *_timm_names()}, more)


def _own(spec: str) -> tuple[str, _Source | Model]:
    function = imported("model", spec)
    try:
        made = function()
    except SessError:
        raise
    except Exception as error:
        raise SessError(f"model {spec!r} failed with {type(error).__name__}: {error}".split("\n")[0]) from error
    if isinstance(made, Model):
        return spec, made
    if not isinstance(made, nn.Module):
        raise SessError(f"model {spec!r} returned {type(made).__name__}, not a torch.nn.Module")
    return spec, _Source(lambda *_: made)


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)


def _torchvision_source(name: str) -> _Source:
    default = torchvision.models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    transforms = default.transforms()
    fast = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}

    def build(weights: str, num_classes: int | None) -> nn.Module:
        if weights == "pretrained":
            return torchvision.models.get_model(name, weights=default)
        classes = {} if num_classes is None else {"num_classes": num_classes}
        return torchvision.models.get_model(name, weights=None, **fast, **classes)

    return _Source(
        build,
        input_size=int(transforms.crop_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        classes=tuple(default.meta["categories"]),
    )


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        return []
    return timm.list_models()


def _timm_source(name: str) -> _Source:
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config

    configuration = resolve_data_config(timm.get_pretrained_cfg(name).to_dict())
    num_classes = timm.get_pretrained_cfg(name).num_classes

    def build(weights: str, classes: int | None) -> nn.Module:
        return timm.create_model(
            name, pretrained=weights == "pretrained", **({} if classes is None else {"num_classes": classes})
        )

    class _Width:
        """What timm's look-up of class names by number of classes wants to see."""

        def __init__(self) -> None:
            self.num_classes = num_classes
            self.pretrained_cfg: dict[str, object] = {}

    subset = infer_imagenet_subset(_Width())
    labels = ImageNetInfo(subset).label_descriptions() if subset else []
    _, height, _ = configuration["input_size"]
    return _Source(build, height, tuple(configuration["mean"]), tuple(configuration["std"]), tuple(labels))


def _aliases(classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return every synonym of "tench, Tinca tinca"."""
    aliases: dict[str, tuple[int, ...]] = {}
    for index, entry in enumerate(classes):
        names = {name.strip().lower() for name in (entry, *entry.split(","))} if "," in entry else ()
        for name in names:
            aliases[name] = (*aliases.get(name, ()), index)
    return aliases


def _weigh(name: str, source: _Source, weights: str | Mapping[str, Tensor] | None) -> nn.Module:
    if weights is None:
        try:
            return source.build("pretrained", None)
        except Exception as error:
            reason = public_text(str(error).split("\n")[0])
            raise SessError(f"no pretrained weights for {name} ({reason}): give --weights FILE") from shown(error)
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return source.build("empty", None)
    state = _read_state(weights) if isinstance(weights, str) else dict(weights)
    what = f"weights {public(weights)!r}" if isinstance(weights, str) else "these weights"
    module = source.build("empty", None)
    expected = module.state_dict()
    wrong = [key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape]
    sizes = {
        state[key].shape[0] for key in wrong if state[key].ndim and state[key].shape[1:] == expected[key].shape[1:]
    }
    if wrong and len(sizes) == 1 and all(state[key].shape[1:] == expected[key].shape[1:] for key in wrong):
        module = source.build("empty", sizes.pop())  # the same network with another number of classes
        expected = module.state_dict()
        wrong = [key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape]
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    excess = [key for key in state if key not in expected]
    if wrong or missing or excess:
        faults = {"missing": missing, "unexpected": excess, "of another shape": wrong}
        listed = ", ".join(f"{len(keys)} {fault} (such as {keys[0]})" for fault, keys in faults.items() if keys)
        raise SessError(f"{what} do not fit {name}: {listed}")
    module = copy.deepcopy(module)
    module.load_state_dict(state, strict=False)
    return module


def _is_safetensors(path: str) -> bool:
    return public(path).partition("?")[0].endswith(".safetensors")


def _read_state(path: str) -> dict[str, Tensor]:
    """Read a state dict, without running anything that may be in the file."""
    content, place = read_small(path, "weights"), public(path)
    try:
        if _is_safetensors(path):
            from safetensors.torch import load

            return load(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        kind = "a safetensors file" if _is_safetensors(path) else "a state dict that loads with weights_only"
        raise SessError(f"weights {place!r} are not {kind}: {str(error).split(chr(10))[0]}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SessError(f"weights {place!r} hold no state dict (a dict of tensors)")
    return {key.removeprefix("module."): value for key, value in state.items()}
