"""In which numbers a model computes."""

from __future__ import annotations

from typing import Literal

# tf32: float32 that a GPU of Ampere or later multiplies with 10 bits of mantissa; elsewhere as fp32.
Precision = Literal["fp32", "tf32", "bf16"]
