"""The scoring pass as cuDNN runs it best on a GPU.

In front of the tapped layer nothing needs a gradient: there batch norms fold into the convolution before them, and
cuDNN adds biases, residual sums and rectifiers in the same kernel, which saves reading and writing each once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sess_ray.models.onednn import TOLERANCES, Activation, Fusion

_AFTER: dict[str, Callable[..., Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu_,
    "hardtanh": F.hardtanh_,
    "swish": lambda x: F.silu(x, inplace=True),
    "hardswish": lambda x: F.hardswish(x, inplace=True),
}
TRIAL = 32  # patches to time a module with


class _Convolution(nn.Module):
    """activation(convolution(x)), or activation(convolution(x) + other)."""

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype, _: list[int], activation: Activation) -> None:
        super().__init__()
        self.geometry: tuple[Any, ...] = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self.weight = layer.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        bias = torch.zeros(len(self.weight), device=self.weight.device) if layer.bias is None else layer.bias
        self.bias = bias.detach().to(dtype)
        self.activation, self.bounds = activation

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        found = F.conv2d(x, self.weight, self.bias, *self.geometry)
        return _AFTER[self.activation](found if other is None else found.add_(other), *self.bounds)


class _InOneKernel(_Convolution):
    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        if self.activation != "relu" or self.geometry[-1] > 1 or isinstance(self.geometry[1], str):
            return super().forward(x, other)
        if other is None:
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, *self.geometry)
        return torch.cudnn_convolution_add_relu(x, self.weight, other, 1.0, self.bias, *self.geometry)


class _Folding(Fusion):
    convolution = _Convolution


class _FusionOfCudnn(Fusion):
    convolution = _InOneKernel


def fuse_convolutions(
    plain: nn.Module, original: nn.Module, layer: str, probe: Tensor, *, whole: bool
) -> fx.GraphModule | None:
    """Return a module that scores as `plain` does, but faster; as `sess_ray.models.onednn.fuse_convolutions`, on a GPU.

    None also where it is no faster, which is measured. Elsewhere than on CUDA it is taken as it is.
    """
    found: dict[float, fx.GraphModule] = {}
    on_cuda = probe.device.type == "cuda"
    with torch.no_grad():
        wanted = plain(probe).float()
        slowest = _seconds(plain, probe) if on_cuda else 0.0
        for kind in (_FusionOfCudnn, _Folding) if on_cuda else (_Folding,):
            try:
                module = kind(plain, original, layer, probe, whole=whole).module
                given = module(probe).float()
                alike = bool((wanted - given).abs().max() <= TOLERANCES[probe.dtype] * wanted.abs().max())
                if alike:
                    found[_seconds(module, probe) if on_cuda else -1.0] = module
            except Exception:  # noqa: S112 - any module may come: what is not taken is scored as it is
                continue
    return found[min(found)] if found and min(found) < slowest else None


def _seconds(module: nn.Module, probe: Tensor) -> float:
    batch = probe[:1].expand(TRIAL, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    taken = []
    for _ in range(4):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        module(batch)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return min(taken[1:])
