"""What a GPU's host does, counted: launches, waits, and copies that block."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

NAME = "pretend"
CPU = torch.device("cpu")
# Allocations and views: no kernel runs.
FREE = {
    *("detach", "alias", "view", "_unsafe_view", "lift_fresh", "lift", "empty_like", "empty", "new_empty"),
    *("empty_strided", "new_empty_strided", "_reshape_alias", "as_strided", "resize_", "set_", "is_same_size"),
    *("_local_scalar_dense", "empty_permuted"),
}
COPIES = {"copy_", "_to_copy", "copy"}
INDEXED = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
TAKE_SCALARS = {"fill_", "masked_fill", "masked_fill_", "where", "index_fill_", "index_fill"}
# Their results' sizes, or values, are the device's to tell.
WAIT = {
    *("nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal", "is_nonzero", "bincount"),
    *("_local_scalar_dense",),
}


class DevicesMixedError(RuntimeError):
    """CUDA would not take these operands together."""


class Counts:
    """What has happened since `clear`, and at which lines of the package."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.part = "rest"  # what launches are counted under
        self.launches: Counter[str] = Counter()
        self.operations: Counter[tuple[str, str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.blocking: Counter[tuple[str, str]] = Counter()
        self.copies = 0

    def wait(self, why: str) -> None:
        self.waits[why, ours()] += 1

    @contextmanager
    def under(self, part: str) -> Iterator[None]:
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before


COUNTS = Counts()


def ours() -> str:
    """Return the innermost line of the package on the stack."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/sess_ray/" in name:
            return f"{name.rsplit('/sess_ray/', 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
