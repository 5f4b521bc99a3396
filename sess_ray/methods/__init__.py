"""Base saliency methods, which turn patches of an image into maps.

A method is a function under `register`. Everything else (command line, tables, tests that run over the registry) finds
it here.
"""

from __future__ import annotations

# In the order of the tables: by family.
# isort: off
from sess_ray.methods import cam
from sess_ray.methods import gradients, excitation, curvature, attention
from sess_ray.methods import perturbation, ablation, averaged
from sess_ray.methods import xrai, augmented, extremal

# isort: on
from sess_ray.methods.listed import table
from sess_ray.methods.registry import Method, get, names, register, require

__all__ = [
    "Method",
    "ablation",
    "attention",
    "augmented",
    "averaged",
    "cam",
    "curvature",
    "excitation",
    "extremal",
    "get",
    "gradients",
    "names",
    "perturbation",
    "register",
    "require",
    "table",
    "xrai",
]
