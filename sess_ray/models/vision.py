"""torchvision, imported without torch's compiler.

Its detection operators ask the compiler a question when they are called. To import it for that takes as long as to
import torch, in every process that holds a model of torchvision's.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from types import ModuleType
from typing import Any

__all__ = ["torchvision"]

COMPILER = "torch._dynamo.utils"
QUESTION = "is_compile_supported"


class _Later(ModuleType):
    """Stands in for the compiler until it is asked for something."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return partial(_answer, name) if name == QUESTION else getattr(_compiler(), name)


def _compiler() -> ModuleType:
    if isinstance(sys.modules.get(COMPILER), _Later):
        del sys.modules[COMPILER]
    return importlib.import_module(COMPILER)


def _answer(name: str, *given: object) -> object:
    return getattr(_compiler(), name)(*given)


if "torchvision" not in sys.modules:
    sys.modules.setdefault(COMPILER, _Later(COMPILER))
import torchvision  # noqa: E402 - what it imports is prepared above

if isinstance(sys.modules.get(COMPILER), _Later):
    del sys.modules[COMPILER]
