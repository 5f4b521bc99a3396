"""To the device and back without waiting: copies from and to pinned memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the host on a device. The host goes on at once; what it does to the values later is not seen."""
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)


def pixels_on(device: torch.device, array: np.ndarray) -> Tensor:
    """Return an array of any layout, (...,), on a device, as `upload` does.

    It is copied once into pinned memory; on a CPU where torch does not take it as it is.
    """
    if device.type == "cpu":
        # What torch takes without a word: in order, and to be written to.
        return torch.from_numpy(np.require(np.ascontiguousarray(array), requirements="W"))
    like = torch.from_numpy(np.empty(0, array.dtype))
    pinned = torch.empty(array.shape, dtype=like.dtype, pin_memory=True)
    np.copyto(pinned.numpy(), array)
    return pinned.to(device, non_blocking=True)


class Download:
    """Values on their way from a device: asked for at once, read when they are needed.

    Parameters
    ----------
    values : Tensor
        On a CPU they are read as they are.
    """

    def __init__(self, values: Tensor) -> None:
        self.pinned = values.device.type != "cpu"
        self._values = values
        if self.pinned:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.get_device_module(values.device).Event()
            self._arrived.record()

    def read(self) -> Tensor:
        """Wait for the values and return them, on the CPU. Pinned memory is scarce: copy what is to be kept."""
        if self.pinned and not self._arrived.query():
            self._arrived.synchronize()
        return self._values


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class Latest(Generic[T]):
    """What a function of hashable arguments returned, the latest used results, as many as fit into some memory.

    Parameters
    ----------
    function : callable
        What it returns says with ``nbytes`` how large it is.
    most : int
        Bytes. A result that is larger than half of it is not kept.
    """

    def __init__(self, function: Callable[..., T], most: int) -> None:
        self.function = function
        self.most = most
        self._held: OrderedDict[Hashable, T] = OrderedDict()
        self._bytes = 0

    def __call__(self, *arguments: Any) -> T:
        if arguments in self._held:
            self._held.move_to_end(arguments)
            return self._held[arguments]
        made = self.function(*arguments)
        if 2 * made.nbytes <= self.most:
            self._held[arguments] = made
            self._bytes += made.nbytes
            while self._bytes > self.most:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        return made

    def clear(self) -> None:
        """Forget all results."""
        self._held.clear()
        self._bytes = 0
