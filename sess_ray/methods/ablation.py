"""Family P: from the scores without a channel, and from those of a patch that fades in behind a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from sess_ray.methods.curvature import replacing
from sess_ray.methods.passes import Shared, probabilities
from sess_ray.methods.perturbation import alive, masked, summed
from sess_ray.methods.registry import register
from sess_ray.models import Model
