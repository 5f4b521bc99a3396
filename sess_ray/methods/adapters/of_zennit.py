"""Composites of chr5tphr/zennit, rules of layer-wise relevance propagation, as base methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from zennit.attribution import Gradient
from zennit.canonizers import Canonizer
from zennit.composites import COMPOSITES
from zennit.core import Composite
from zennit.torchvision import ResNetCanonizer, SequentialMergeBatchNorm, VGGCanonizer

from sess_ray.errors import unknown
from sess_ray.methods.adapters import ONCE, SIGNS, has_rectifiers, module_of
from sess_ray.methods.attention import Attentions
from sess_ray.models import Model

GIVEN = {"self", "low", "high", "layer_map", "first_map", "canonizers"}
OF_RECTIFIERS = {"deconvnet", "guided_backprop"}
CANONIZERS: dict[str, Callable[[], list[Canonizer]]] = {
    "batch_norm": lambda: [SequentialMergeBatchNorm()],
    "resnet": lambda: [ResNetCanonizer()],
    "vgg": lambda: [VGGCanonizer()],
    "none": list,
}


class _Sums(TorchFunctionMode):
    """While it is active, sums of two maps are counted."""

    SUMS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, function: Callable[..., Any], _: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in self.SUMS and all(isinstance(one, Tensor) and one.ndim == 4 for one in args[:2]):
            self.count += 1
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Zennit:
    """Hand the target's logit down to the pixels by the rules of a composite; sum over colours."""

    name: str
    tried = True

    def refusal(self, model: Model) -> str | None:
        """Return why the composite has no rule for a model, which zennit does not say."""
        if self.name in OF_RECTIFIERS:
            return None if has_rectifiers(model) else "it has no nn.ReLU modules for zennit to change"
        with torch.no_grad(), Attentions(lambda attention: attention) as attentions:
            model.module(model.probe())
        if attentions.found:
            return "zennit has no rule for attention"
        with torch.no_grad(), self._composite(model, "auto").context(module_of(model)) as module, _Sums() as sums:
            module(model.probe())
        return "zennit has no rule for its skips, but for those of torchvision's ResNets" if sums.count else None

    def _composite(self, model: Model, canonizer: str, **options: Any) -> Composite:
        kind = COMPOSITES[self.name]
        if canonizer == "auto":
            family = type(model.module).__module__
            canonizer = "resnet" if family == "torchvision.models.resnet" else "batch_norm"
        if "low" in inspect.signature(kind.__init__).parameters:
            bounds = (
                (torch.tensor([limit]) - torch.tensor(model.mean)) / torch.tensor(model.std) for limit in (0.0, 1.0)
            )
            low, high = (bound.view(1, -1, 1, 1).to(model.probe()) for bound in bounds)
            options |= {"low": low, "high": high}  # black and white
        return kind(canonizers=CANONIZERS[canonizer](), **options)

    def __call__(
        self,
        model: Model,
        patches: Tensor,
        targets: Tensor,
        *,
        generators: list[torch.Generator],
        sign: str = "positive",
        canonizer: str = "auto",
        **options: Any,
    ) -> Tensor:
        """Return maps, (N, h, w)."""
        del generators
        composite, count = self._composite(model, canonizer, **options), model.num_classes + len(model.groups)
        with torch.enable_grad(), Gradient(module_of(model), composite) as attributor:
            _, relevance = attributor(patches.detach().clone(), F.one_hot(targets, count).to(patches))
        return SIGNS[sign](relevance.detach().float().sum(1))


def found(name: str) -> tuple[Zennit, dict[str, Any], str]:
    """Return a method, its options with their defaults, and its passes; `SessError` if there is none."""
    names = {kind.__name__: key for key, kind in COMPOSITES.items()} | {key: key for key in COMPOSITES}
    if name not in names:
        raise unknown("composite of zennit", name, COMPOSITES)
    key = names[name]
    parameters = inspect.signature(COMPOSITES[key].__init__).parameters.values()
    options = {one.name: one.default for one in parameters if one.name not in GIVEN}
    sign = "absolute_value" if key in OF_RECTIFIERS else "positive"
    return Zennit(key), options | {"sign": sign, "canonizer": "auto"}, ONCE
