"""Classifiers of Hugging Face transformers, of the hub or of a folder that `save_pretrained` wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from sess_ray.access import public_text, shown
from sess_ray.errors import SessError
from sess_ray.models.processors import preprocessing
from sess_ray.models.source import Source
from sess_ray.windows import Size, size_of

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def source(place: str, prompts: Sequence[str] | None) -> Source:
    """Return how to build a classifier of transformers.

    Parameters
    ----------
    place : str
        A folder, or a name on the hub, with a revision behind an ``@`` where one is wanted.
    prompts : sequence of str or None
        What a zero-shot model tells apart; others take none.

    Raises
    ------
    SessError
        If it cannot be read, is no classifier, or does more to pixels than to resize and normalise them.
    """
    name = f"hf:{place}"
    with speaking(name):
        options = located(place)
        config = transformers().AutoConfig.from_pretrained(**options)
    if _is_zero_shot(config, name):
        from sess_ray.models.zero_shot import clip

        return clip(name, options, config, prompts)
    if prompts:
        raise SessError(f"{name} has classes of its own: leave prompts out, and separate targets by commas")
    pixels = preprocessing(image_processor(name, options), name, image_size(config))

    def build(weights: str, num_classes: int | None) -> nn.Module:
        with speaking(name):
            network = _pretrained(name, options) if weights == "pretrained" else _empty(config, num_classes)
        network.register_forward_hook(_logits)
        if pixels.reverses:
            network.register_forward_pre_hook(_reversed)
        return network

    labels = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    return Source(build, pixels.size, pixels.mean, pixels.std, tuple(labels[index] for index in sorted(labels)))


def located(place: str) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a folder or a name on the hub; code in it is never run."""
    folder = os.path.expanduser(place)
    if os.path.isdir(folder):
        if not os.path.isfile(os.path.join(folder, "config.json")):
            raise SessError(f"hf:{place}: the folder has no config.json: give one that save_pretrained wrote")
        return {"pretrained_model_name_or_path": folder, "trust_remote_code": False}
    if place.startswith((".", "~")) or not _HUB_NAME.fullmatch(place):
        raise SessError(f"hf:{place}: no such folder")
    name, _, revision = place.partition("@")
    return {"pretrained_model_name_or_path": name, "revision": revision or "main", "trust_remote_code": False}


def image_processor(name: str, options: dict[str, Any]) -> Any:
    """Return the image processor that is saved beside a model."""
    try:
        with speaking(name):
            return transformers().AutoImageProcessor.from_pretrained(**options)
    except SessError as error:
        raise SessError(f"{error}: save it beside the model, as an image processor's save_pretrained does") from None


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Let transformers be silent, and say in one line what it cannot do."""
    logging = transformers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except SessError:
        raise
    except Exception as error:
        said = public_text(" ".join(str(error).split()))
        sentence = re.split(r"(?<=[\w'`\")])[.:] (?=[A-Z`])", said)[0].rstrip(".") or type(error).__name__
        raise SessError(f"cannot load {name}: {sentence}") from shown(error)
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def transformers() -> Any:
    """Return the package; `SessError` where it is missing."""
    try:
        return import_module("transformers")
    except ImportError as error:
        raise SessError("models named hf: need transformers: install sess-ray[transformers]") from error


def _is_zero_shot(config: Any, name: str) -> bool:
    """Say whether a model tells prompts apart; `SessError` where it is neither that nor a classifier."""
    from transformers.models.auto import modeling_auto

    built = config.architectures or ()
    heads = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    both = modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    known = {head for entry in heads.values() for head in ((entry,) if isinstance(entry, str) else entry)}
    if known.intersection(built) or (not built and config.model_type in heads and config.model_type not in both):
        return False
    if set(both.values()).intersection(built) or (not built and config.model_type in both):
        return True
    raise SessError(
        f"{name} has no head that classifies: it is {built[0] if built else config.model_type},"
        " and not one of ...ForImageClassification or a model for zero-shot classification"
    )


def _pretrained(name: str, options: dict[str, Any]) -> nn.Module:
    network, told = transformers().AutoModelForImageClassification.from_pretrained(
        **options, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    if told["mismatched_keys"]:
        key, saved, wanted = min(told["mismatched_keys"])
        raise SessError(
            f"{name}: {key} has the shape {tuple(saved)} in its weights, and {tuple(wanted)} by its config.json: put"
            " num_labels and id2label there right"
        )
    missing = sorted(told["missing_keys"])
    if missing:
        raise SessError(
            f"{name}: {len(missing)} weights are missing, such as {missing[0]}: it is not a whole classifier"
        )
    return network


def _empty(config: Any, num_classes: int | None) -> nn.Module:
    if num_classes is not None:
        config = type(config).from_dict({**config.to_dict(), "id2label": None, "label2id": None})
        config.num_labels = num_classes
    return transformers().AutoModelForImageClassification.from_config(config)


def image_size(config: Any) -> Size | None:
    """Return the size of the input that a configuration names."""
    size = getattr(config, "image_size", None)
    found = [size] if isinstance(size, int) else list(size or ())
    return size_of(found[0], found[-1]) if 1 <= len(found) <= 2 else None


def _logits(_: nn.Module, __: object, output: Any) -> Tensor:
    return output.logits


def _reversed(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    pixels, *others = inputs
    return (pixels.flip(1), *others)
