"""Literal values that the official implementations gave on small inputs; each entry names its code and its input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden.json").read_text())
