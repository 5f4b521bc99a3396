"""Base saliency methods: what turns patches of an image into maps.

One file a family; a method is a function under `register`. Everything else (command line, tables, tests that run
over the registry) finds it here.
"""

from __future__ import annotations

from sess_ray.methods import cam, gradients, averaged, perturbation  # isort: skip - the order of the tables
from sess_ray.methods.registry import Method, get, names, register, require, table

__all__ = ["Method", "averaged", "cam", "get", "gradients", "names", "perturbation", "register", "require", "table"]
