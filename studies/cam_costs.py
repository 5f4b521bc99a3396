"""Measure what class activation maps cost beside the scoring pass that they are made of, in the processor's time.

The same batch of windows is scored alone, then scored and explained by each method of family T, in turns. One thread,
and its own time: on a machine that others share a clock would say what they do.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from cyclopts import Parameter

from sess_ray import load_model, methods
from sess_ray.cli import command
from sess_ray.engine.fusion import min_max
from sess_ray.engine.scoring import of_layer
from sess_ray.methods import Method
from sess_ray.methods.registry import Scored
from sess_ray.models import Model

app = command.command("cam_costs.py", __doc__)


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """What to measure.

    Parameters
    ----------
    model
        A classifier by name.
    weights
        Its weights, as for `sess-ray explain`.
    batch_size
        Windows at a time.
    rounds
        How often each method has its turn, behind one for warmth.
    """

    model: str = "resnet50"
    weights: str = "random"
    batch_size: int = 8
    rounds: int = 9


def explain(model: Model, method: Method, patches: torch.Tensor, targets: torch.Tensor) -> None:
    """Score windows and make their maps, as the engine does it."""
    tap = model.tap(patches, gradients=method.pulls)
    values = of_layer(tap, targets, slice(None), method.looks_at)
    scored = {"scored": Scored(model, targets, tap.logits, tap.pull)} if "scored" in method.given else {}
    min_max(method.function(*values.values(), **scored), model.input_size)


@app.default
def costs(config: Annotated[CostConfig, Parameter(name="*")] = CostConfig()) -> int:
    """Print a line for each method; return the exit code."""
    torch.set_num_threads(1)
    model = load_model(config.model, config.weights).prepared(torch.device("cpu"), "fp32")
    known = [methods.get(name) for name in methods.names()]
    cams = [method for method in known if method.family == "T" and not method.refusal(model)]
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(config.batch_size, 3, *model.sides, generator=generator)
    patches = patches.contiguous(memory_format=torch.channels_last)
    targets = model.logits(patches).argmax(1)
    seconds = np.empty((config.rounds + 1, 1 + len(cams)))
    for row in seconds:
        for column in range(len(row)):
            begin = time.process_time()
            if column:
                explain(model, cams[column - 1], patches, targets)
            else:
                model.logits(patches)
            row[column] = time.process_time() - begin
    seconds = seconds[1:]
    print(f"{config.model}: {np.median(seconds[:, 0]) * 1000 / config.batch_size:.1f} ms a window are scored alone in")
    for method, ratios in zip(cams, (seconds[:, 1:] / seconds[:, :1]).T, strict=True):
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        print(f"{method.name:14s} {middle:.2f} ({low:.2f} to {high:.2f})")
    return 0


if __name__ == "__main__":
    command.leave(command.run(app, sys.argv[1:]))
