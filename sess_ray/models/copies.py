"""Copies of modules, also of those that keep what their forward has made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sess_ray.access import one_line
from sess_ray.errors import SessError


class _Apart(TorchFunctionMode):
    """Copies tensors that autograd follows as well, without what they come from; torch alone refuses to."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def copied(module: nn.Module) -> Any:
    """Return a copy that shares nothing with a module.

    Raises
    ------
    SessError
        If it holds something that cannot be copied.
    """
    try:
        with _Apart():
            return copy.deepcopy(module)
    except Exception as error:
        raise SessError(
            f"{type(module).__name__} cannot be copied ({one_line(error)}): leave out of it what is no part of a"
            " network, such as open files and locks"
        ) from error
