"""Classifiers: loading them, their preprocessing and class names, and the tap on their activations."""

from __future__ import annotations

from sess_ray.models.load import load_model, model_table
from sess_ray.models.model import Model, Tap

__all__ = ["Model", "Tap", "load_model", "model_table"]
