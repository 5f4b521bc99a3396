"""All windows at once, as on a GPU, and scale by scale, as on a CPU, give one map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sess_ray.engine import placing
from sess_ray.engine.scales import over, scale_by_scale
from sess_ray.windows import sess_plan


@pytest.mark.parametrize("fade", [0.0, 0.2, 0.5])
@pytest.mark.parametrize(("window", "cells"), [(64, (7, 7)), (64, (2, 5)), (64, (64, 64)), ((80, 48), (5, 3))])
def test_all_at_once_is_scale_by_scale(fade, window, cells, monkeypatch):
    monkeypatch.setattr(placing, "CHUNK", 40_000)  # several parts
    plan = replace(sess_plan(150, 211, window, 4), fade=fade)
    generator = torch.Generator().manual_seed(0)
    kept = torch.randperm(plan.num_patches, generator=generator)[:9].sort().values
    maps = torch.rand(9, *cells, dtype=torch.float64, generator=generator)
    at = placing._placement(plan, *cells, torch.float64, torch.device("cpu"))
    for top, bottom in ((0, 150), (31, 77)):
        found = over(at.summed(maps[None], kept[None], top, bottom), at.coverage(top, bottom))[0]
        torch.testing.assert_close(found, scale_by_scale(plan, maps, kept)(top, bottom), atol=1e-12, rtol=0)
