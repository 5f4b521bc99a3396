"""In which numbers a model computes."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16"]
