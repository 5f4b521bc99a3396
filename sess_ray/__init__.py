"""sess-ray shows what an image classifier looks at, for whole image datasets.

What this module exports needs torch but no Ray; `sess_ray.pipeline` runs it over a dataset with Ray Data.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sess_ray.errors import SessError

if TYPE_CHECKING:
    from sess_ray import methods
    from sess_ray.engine.explanation import Explanation
    from sess_ray.engine.sess import SESS
    from sess_ray.models import Model, load_model
    from sess_ray.runs import Run, browse, open_run, show
    from sess_ray.training import MapDataset

__version__ = "0.1.0"
__all__ = [
    "SESS",
    "Explanation",
    "MapDataset",
    "Model",
    "Run",
    "SessError",
    "browse",
    "load_model",
    "methods",
    "open_run",
    "show",
]

# Imported on first use: `--help`, and workers that only read and write, do not need torch.
_HOMES = {
    "SESS": "sess_ray.engine.sess",
    "Explanation": "sess_ray.engine.explanation",
    "Model": "sess_ray.models",
    "load_model": "sess_ray.models",
    "Run": "sess_ray.runs",
    "browse": "sess_ray.runs",
    "open_run": "sess_ray.runs",
    "show": "sess_ray.runs",
    "MapDataset": "sess_ray.training",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    if name == "methods":
        return importlib.import_module("sess_ray.methods")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sess_ray' has no attribute {name!r}")
