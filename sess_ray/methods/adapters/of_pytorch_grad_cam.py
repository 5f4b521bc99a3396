"""Class activation maps of jacobgil/pytorch-grad-cam as base methods."""

from __future__ import annotations

import inspect
import io
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_grad_cam
import torch
from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor

from sess_ray.access import one_line
from sess_ray.errors import SessError, unknown
from sess_ray.methods.adapters import ONCE, layer_of, module_of, seeded
from sess_ray.models import Model

GIVEN = {"self", "model", "target_layers", "reshape_transform", "ablation_layer"}
CALLED = {"aug_smooth": False, "eigen_smooth": False}
MANY = {"ScoreCAM", "AblationCAM"}
# The first draws from the generator that all share, the second scales over the batch.
ALONE = {"RandomCAM", "FullGrad"}


@dataclass(frozen=True)
class GradCam:
    """Make the map that pytorch-grad-cam makes of the target's logit and the model's layer."""

    name: str

    @property
    def tried(self) -> bool:
        """Whether a try takes little enough."""
        return self.name not in MANY

    def refusal(self, model: Model) -> str | None:
        """Return why the method cannot explain a model, where the library would not say so."""
        if self.name == "AblationCAM" and model.layout == "NHWC":
            return (
                f"pytorch-grad-cam leaves out channels that are first or of tokens, and layer {model.layer} has neither"
            )
        return None

    def __call__(
        self, model: Model, patches: Tensor, targets: Tensor, *, generators: list[torch.Generator], **options: Any
    ) -> Tensor:
        """Return maps, (N, h, w)."""
        called = {name: options.pop(name, default) for name, default in CALLED.items()}
        if self.name == "AblationCAM":
            options["ablation_layer"] = AblationLayer() if model.layout == "NCHW" else AblationLayerVit()
        layers = [] if self.name == "FullGrad" else [layer_of(model)]
        reshape = None if model.layout == "NCHW" else model.gridded
        lines = [partial(_logit, target=target) for target in targets.tolist()]

        def maps(rows: slice) -> Tensor:
            start = patches[rows].detach().clone().requires_grad_()
            return torch.from_numpy(cam(start, lines[rows], **called))

        # It draws bars of progress.
        with torch.enable_grad(), redirect_stderr(io.StringIO()):
            cam = getattr(pytorch_grad_cam, self.name)(module_of(model), layers, reshape_transform=reshape, **options)
            try:
                if self.name not in ALONE:
                    return maps(slice(None)).to(patches.device)
                found = []
                for row, generator in enumerate(generators):
                    with seeded(generator):
                        found.append(maps(slice(row, row + 1)))
                return torch.cat(found).to(patches.device)
            except (AttributeError, TypeError, ValueError) as error:  # of what was too much for a try
                told = f"pytorch_grad_cam says: {one_line(error)}"
                raise SessError(f"pytorch_grad_cam:{self.name} cannot explain {model.name}: {told}") from error
            finally:
                cam.activations_and_grads.release()


def _logit(logits: Tensor, target: int) -> Tensor:
    return logits[..., target]


def found(name: str) -> tuple[GradCam, dict[str, Any], str]:
    """Return a method, its options with their defaults, and its passes where these are one; `SessError` if none."""
    kinds = {
        other: kind
        for other, kind in vars(pytorch_grad_cam).items()
        if inspect.isclass(kind) and issubclass(kind, BaseCAM) and kind is not BaseCAM
    }
    if name not in kinds:
        raise unknown("method of pytorch_grad_cam", name, kinds, " (of its classes those of one map of one layer)")
    parameters = inspect.signature(kinds[name].__init__).parameters.values()
    options = {parameter.name: parameter.default for parameter in parameters if parameter.name not in GIVEN}
    return GradCam(name), options | CALLED, "" if name in MANY else ONCE
