"""How float32 products are computed: exactly, or rounded, which a GPU of Ampere or later does much faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.backends import cuda, cudnn, mkldnn

# How torch 2.8 is told, each with what says that products are exact, and that they may be rounded.
_SHARED: list[tuple[Callable[[], Any], Callable[[Any], None], tuple[Any, Any]]] = [
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, ("highest", "high")),
    (lambda: cudnn.allow_tf32, lambda value: setattr(cudnn, "allow_tf32", value), (False, True)),
]
# Since torch 2.9 each kind of product has its own word.
_GPU: list[Any] = [cuda.matmul, cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else []
# The last follows set_float32_matmul_precision.
_EACH: list[Any] = [*_GPU, mkldnn.matmul] if _GPU else []  # type: ignore[attr-defined]


@contextmanager
def multiplying(*, tf32: bool) -> Iterator[None]:
    """Allow, or forbid, that a GPU rounds the factors of float32 products to TF32; of convolutions torch allows it.

    Both ways of telling torch are used: where they contradict one another, to ask raises. Afterwards the caller's
    settings hold again, however they were made.
    """
    words = [owner.fp32_precision for owner in _EACH]
    asked = [_answer(get) for get, *_ in _SHARED]
    try:
        for _, tell, values in _SHARED:
            tell(values[tf32])
        for owner in _GPU:
            owner.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for (_, tell, _), value in zip(_SHARED, asked, strict=True):
            if value is not None:
                tell(value)
        for owner, word in zip(_EACH, words, strict=True):
            owner.fp32_precision = word


def _answer(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except RuntimeError:  # the caller has told it the other way
        return None
