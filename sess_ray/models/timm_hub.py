"""Classifiers that timm loads from the hub, or from a folder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sess_ray.access import one_line, shown
from sess_ray.errors import SessError
from sess_ray.models.source import Source


def source(place: str, _: Sequence[str] | None, library: str) -> Source:
    """Return how to build what stands behind the colon of `library`: hf-hub, or local-dir; it takes no prompts."""
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError as error:
        raise SessError(f"models named {library}: need timm: install sess-ray[timm]") from error
    name = f"{library}:{place}"
    try:
        configuration = timm.create_model(name).pretrained_cfg
    except Exception as error:
        raise SessError(f"cannot load {name}: {one_line(error)}") from shown(error)
    pixels = resolve_data_config(configuration)
    channels, *sides = pixels["input_size"]
    if channels != 3:
        raise SessError(f"{name} takes images of {channels} channels, and images have 3")
    names = configuration.get("label_names") or ()
    described = configuration.get("label_descriptions") or {}
    labels = tuple(str(described.get(label, label)) for label in names)

    def build(weights: str, classes: int | None) -> nn.Module:
        return timm.create_model(
            name, pretrained=weights == "pretrained", **({} if classes is None else {"num_classes": classes})
        )

    return Source(build, (sides[0], sides[1]), tuple(pixels["mean"]), tuple(pixels["std"]), labels)
