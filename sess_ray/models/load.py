"""Loading a classifier by name, with its weights and their metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sess_ray.access import public, public_text, shown
from sess_ray.errors import SessError, unknown
from sess_ray.models import huggingface, timm_hub, zero_shot
from sess_ray.models.checkpoints import filled, misfit, needed, new_head, opened, other_classes, read_state, renamed
from sess_ray.models.copies import copied
from sess_ray.models.given import Given, aliases_of, checked_size, colours
from sess_ray.models.layers import Found, find_layer
from sess_ray.models.model import Model
from sess_ray.models.outputs import Readable, as_logits, in_full_precision, refuse_opaque, refuse_towers, unwrapped
from sess_ray.models.scores import Activation
from sess_ray.models.source import Source
from sess_ray.models.vision import torchvision
from sess_ray.own import imported
from sess_ray.windows import Size, in_words, size_of


def load_model(
    model: str | nn.Module | Model,
    weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = None,
    layer: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    input_size: int | Sequence[int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    activation: Activation | Literal["auto"] = "auto",
    prompts: Sequence[str] | None = None,
) -> Model:
    """Load a classifier.

    Parameters
    ----------
    model : str or nn.Module or Model
        A torchvision or timm classifier by name (``timm/NAME`` if both have one), ``hf:NAME_OR_FOLDER`` of Hugging
        Face transformers, ``open_clip:NAME/TAG``, ``hf-hub:NAME`` or ``local-dir:FOLDER`` of timm,
        ``package.module:function`` of your own, which returns a module or a `Model`; or a module or `Model` itself.
    weights : str, path or dict, optional
        A safetensors file or a state dict saved by ``torch.save``, at a path or any URL that fsspec opens, or the
        state dict itself; ``"random"`` for untrained weights. By default the pretrained weights of
        torchvision or timm, downloaded. A file is read as tensors only: it cannot run code.
    layer : str, optional
        Name of the layer for class activation maps, as in ``named_modules()``. By default it is found automatically.
    class_names : sequence of str, optional
        Names of the classes, in order.
    input_size : int or (int, int), optional
        Side of the model's input in pixels, or its height and width. By default what the weights' metadata say, else
        224.
    mean, std : float or sequence of 3 floats, optional
        Normalisation of RGB in 0..1. By default what the weights' metadata say, else ImageNet's.
    activation : {"auto", "softmax", "sigmoid", "none"}
        How logits become probabilities: ``softmax`` if classes exclude one another, ``sigmoid`` if each is a label that
        may be present, ``none`` if the outputs are probabilities already. By default what the model's configuration
        says; else the softmax or sigmoid that ends the model; else a sigmoid for a single logit; else softmax
        (`sess_ray.models.outputs`).
    prompts : sequence of str, optional
        The classes of a zero-shot model (CLIP, SigLIP), two or more prompts. Other models take none.

    Returns
    -------
    Model
        The model, in evaluation mode.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    if activation not in (*get_args(Activation), "auto"):
        raise unknown("activation", activation, (*get_args(Activation), "auto"))
    if isinstance(weights, os.PathLike):
        weights = os.fspath(weights)
    given = Given(class_names, input_size, mean, std, None if activation == "auto" else activation)
    name, source = (model.name, model) if isinstance(model, Model) else _find(model, prompts)
    if prompts and not (isinstance(source, Source) and source.verbatim):
        raise SessError(f"{name} has classes of its own: leave prompts out, and separate targets by commas")
    if isinstance(source, Model):
        if weights is not None:
            raise SessError(f"{name} brings its own weights: leave --weights out")
        return given.changed(source, layer)
    weighed, notes = _weigh(name, source, weights)
    size = given.size or checked_size(source.input_size, name)
    read, found = _looked_at(weighed, name, source, size, layer, given.activation)
    classes = given.names(found.num_classes, name)
    if not classes and len(source.classes) == found.num_classes:
        classes = tuple(entry if source.verbatim else entry.split(",")[0].strip() for entry in source.classes)
    return Model(
        module=read.module,
        name=name,
        layer=found.name,
        layout=found.layout,
        positions=found.positions,
        num_classes=found.num_classes,
        input_size=size,
        mean=colours("mean", source.mean if mean is None else mean),
        std=colours("std", source.std if std is None else std),
        classes=classes,
        aliases=aliases_of(given.class_names or (source.classes if classes and not source.verbatim else ())),
        activation=read.activation,
        notes=(*notes, *read.notes),
    )


def _looked_at(
    module: nn.Module, name: str, source: Source, size: Size, layer: str | None, activation: Activation | None
) -> tuple[Readable, Found]:
    """Return a module that gives logits, and its layer.

    The libraries' own give logits by themselves, if not of one class alone.
    """
    module = unwrapped(module)
    refuse_opaque(module, name)
    wanted = activation or source.activation or _said(module, name)
    module = in_full_precision(module).eval()
    if source.known and activation is None:
        found = find_layer(module, size, layer)
        if found.num_classes > 1:
            return Readable(module, wanted or "softmax"), found
    readable = as_logits(module, name, size, wanted)
    return readable, find_layer(readable.module, size, layer)


def _said(module: nn.Module, name: str) -> Activation | None:
    """Return what a model's own configuration says of its classes, as transformers writes it."""
    kinds: dict[str, Activation] = {"multi_label_classification": "sigmoid", "single_label_classification": "softmax"}
    problem = getattr(getattr(module, "config", None), "problem_type", None) or ""
    if problem == "regression":
        raise SessError(
            f"{name} is for regression, and its outputs are no scores of classes: if they are, say with activation="
            " (--activation) which"
        )
    return kinds.get(problem)


def model_table() -> list[tuple[object, ...]]:
    """Return a row for each classifier that can be built by name, under a header: name, size of its input, library."""
    ours = [(name, _torchvision_source(name).input_size, "torchvision") for name in _torchvision_names()]
    return [("model", "input", "library"), *ours, *(_timm_row(name) for name in _timm_names())]


def _timm_row(name: str) -> tuple[object, ...]:
    import timm

    configuration = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return f"timm/{name}", in_words(size_of(*configuration.input_size[-2:])) if configuration else "", "timm"


def _find(model: str | nn.Module, prompts: Sequence[str] | None) -> tuple[str, Source | Model]:
    if isinstance(model, nn.Module):
        return type(model).__name__, _told_by(model)
    if not isinstance(model, str):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"of type {type(model).__name__}"
        raise SessError(f"a model is a name or a torch.nn.Module, and this one is {kind}: build it, and give that")
    library, colon, place = model.partition(":")
    if colon and library in _LIBRARIES:
        return model, _LIBRARIES[library][0](place, prompts)
    if colon:
        return _own(model)
    if model in _torchvision_names():
        return model, _torchvision_source(model)
    bare = model.removeprefix("timm/")
    if bare.split(".")[0] in _timm_names():
        return model, _timm_source(bare)
    if os.path.exists(model):
        raise SessError(
            f"model {model!r} is a file or a folder: give its architecture by name, and weights as --weights FILE"
            " (weights=); a folder of transformers as hf:FOLDER, of timm as local-dir:FOLDER"
        )
    more = "" if _timm_names() else " (timm's models need: pip install timm)"
    raise unknown("model", model, {*_torchvision_names(), *_timm_names()}, more)


def _own(spec: str) -> tuple[str, Source | Model]:
    function = imported("model", spec)
    try:
        made = function()
    except SessError:
        raise
    except (Exception, SystemExit) as error:
        raise SessError(f"model {spec!r} failed with {type(error).__name__}: {error}".split("\n")[0]) from error
    if isinstance(made, Model):
        return spec, made
    if not isinstance(made, nn.Module):
        raise SessError(f"model {spec!r} returned {type(made).__name__}, not a torch.nn.Module")
    return spec, _told_by(made)


def _told_by(module: nn.Module) -> Source:
    """Return a source of a module that is there; timm's modules tell of their preprocessing."""
    module = unwrapped(module)
    refuse_towers(module)
    told = getattr(module, "pretrained_cfg", None)
    known = told if isinstance(told, Mapping) else {}
    metadata: dict[str, Any] = {name: tuple(known[name]) for name in ("mean", "std") if known.get(name)}
    if known.get("input_size"):
        metadata["input_size"] = tuple(known["input_size"])[-2:]
    return Source(lambda *_: module, known=False, **metadata)


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)


def _torchvision_source(name: str) -> Source:
    default = torchvision.models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    transforms = default.transforms()
    fast = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}

    def build(weights: str, num_classes: int | None) -> nn.Module:
        if weights == "pretrained":
            return torchvision.models.get_model(name, weights=default)
        classes = {} if num_classes is None else {"num_classes": num_classes}
        return torchvision.models.get_model(name, weights=None, **fast, **classes)

    return Source(
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


def _timm_source(name: str) -> Source:
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config

    try:
        pretrained = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        bare, _, tag = name.partition(".")
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{bare}.*")]
        raise unknown(f"tag of {bare}", tag, tags) from error
    configuration, num_classes = resolve_data_config(pretrained.to_dict()), pretrained.num_classes

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
    channels, *sides = configuration["input_size"]
    if channels != 3:
        raise SessError(f"{name} takes images of {channels} channels, and images have 3")
    return Source(build, tuple(sides), tuple(configuration["mean"]), tuple(configuration["std"]), tuple(labels))


# By what stands before the colon of a model's name: how to build what stands behind it, for some prompts, and the
# package that does it.
_LIBRARIES: dict[str, tuple[Callable[[str, Sequence[str] | None], Source], str]] = {
    "hf": (huggingface.source, "transformers"),
    "open_clip": (zero_shot.open_clip, "open-clip-torch"),
    **{name: (partial(timm_hub.source, library=name), "timm") for name in ("hf-hub", "hf_hub", "local-dir")},
}


def package_of(model: str) -> str | None:
    """Return the package that a model's name says, as pip knows it; None where it says none.

    >>> package_of("hf:google/vit-base-patch16-224"), package_of("resnet50"), package_of("mine:model")
    ('transformers', None, None)
    >>> package_of("timm/resnet50"), package_of("vit_tiny_patch16_224")
    ('timm', 'timm')
    """
    library, colon, _ = model.partition(":")
    if colon:
        return _LIBRARIES[library][1] if library in _LIBRARIES else None
    return None if model in _torchvision_names() else "timm"


def _weigh(name: str, source: Source, weights: str | Mapping[str, Tensor] | None) -> tuple[nn.Module, list[str]]:
    """Return a module with its weights, and what had to be done to read them."""
    if weights is None:
        try:
            return source.build("pretrained", None), []
        except SessError:
            raise
        except Exception as error:
            reason = public_text(str(error).split("\n")[0])
            raise SessError(f"no pretrained weights for {name} ({reason}): give --weights FILE") from shown(error)
    if weights == "random":
        kept = [] if source.known else [f"--weights {weights}: {name} keeps the weights that it comes with"]
        return _empty(source, None, drawn=source.known), kept
    what = f"weights {public(weights)!r}" if isinstance(weights, str) else "these weights"
    module = _empty(source, None)
    wanted = needed(module)
    given, inside = read_state(weights, wanted) if isinstance(weights, str) else opened(weights, what, wanted)
    state, prefix = renamed(given, wanted, what)
    classes = other_classes(state, module) or new_head(state, module)
    if classes is not None:
        module = _empty(source, classes)
    wrong = misfit(state, module)
    if wrong:
        raise SessError(f"{what} do not fit {name}: {wrong}")
    module = copied(module)
    filled(module, state, what)
    notes = [f"{what}: taken from {' / '.join(inside)}"] if inside else []
    if prefix:
        left = len(given) - len(state)
        notes.append(f"{what}: the keys' prefix {prefix} is taken off" + (f", {left} others left out" if left else ""))
    return module, notes


def _empty(source: Source, classes: int | None, *, drawn: bool = False) -> nn.Module:
    """Build without weights from files: those that no file has are the same in every run.

    `drawn` draws linear layers that a constructor sets to 0 too: where the head is one, all classes would be alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = source.build("empty", classes)
        for part in module.modules() if drawn else ():
            if isinstance(part, nn.Linear) and not part.weight.any():
                part.reset_parameters()
        return module
