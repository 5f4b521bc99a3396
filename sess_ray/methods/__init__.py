"""Base saliency methods: what turns patches of an image into maps.

One file a family; a method is a function under `register`. Everything else (command line, tables, tests that run
over the registry) finds it here.
"""

from __future__ import annotations

from sess_ray.methods import cam
from sess_ray.methods.registry import Method, get, names, register, require

__all__ = ["Method", "cam", "get", "names", "register", "require"]
