"""What base methods cost beside the passes that they truly need."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from sess_ray import methods
from sess_ray.benchmark.config import BenchmarkConfig, engine, timed
from sess_ray.cli import command
from sess_ray.engine.sess import SESS
from sess_ray.models import Model, load_model


class Recorder:
    """Notes the passes through a model: the shape of each batch, and whether a gradient comes back to the pixels."""

    def __init__(self, model: Model) -> None:
        self.passes: list[tuple[tuple[int, ...], bool]] = []
        self.handles = [module.register_forward_pre_hook(self._note) for module in {model.module, model.scorer}]

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _note(self, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.passes.append((tuple(inputs[0].shape), inputs[0].requires_grad))

    def replay(self, sess: SESS) -> float:
        """Return the seconds of the same passes alone, on batches that lie ready."""
        loaded = {
            shape: torch.randn(shape, device=sess.device).to(sess.dtype).contiguous(memory_format=torch.channels_last)
            for shape, _ in self.passes
        }
        return timed(self._run, sess.model.module, loaded)

    def _run(self, module: torch.nn.Module, loaded: dict[tuple[int, ...], torch.Tensor]) -> None:
        for shape, backward in self.passes:
            if backward:
                with torch.enable_grad():
                    start = loaded[shape].detach().requires_grad_()
                    torch.autograd.grad(module(start)[:, 0].sum(), start)
            else:
                with torch.inference_mode():
                    module(loaded[shape])


def measure_method(config: BenchmarkConfig, name: str, images: list[np.ndarray]) -> dict[str, Any]:
    """Return a method's passes for each kept patch, and its time over the time of these passes and of scoring."""
    options = command.options_of(name, config.method_option, methods.names())
    sess = engine(config, method=name, method_options=options)
    recorder = Recorder(sess.model)
    found = sess.explain(images)
    recorder.stop()
    floor = [recorder.replay(sess)]
    seconds = timed(sess.explain, images)
    floor.append(recorder.replay(sess))
    kept = sum(explanation.num_kept for [explanation] in found)
    pixels = prod(sess.model.sides)
    scored = sum(explanation.num_patches + (explanation.num_patches > 1) for [explanation] in found)
    forwards = sum(shape[0] * shape[2] * shape[3] / pixels for shape, _ in recorder.passes) - scored
    backwards = sum(shape[0] for shape, backward in recorder.passes if backward)
    return {
        "method": name,
        "options": options,
        "kept": kept,
        "forwards": forwards / kept,
        "backwards": backwards / kept,
        "seconds": seconds,
        "ratio": seconds / float(np.mean(floor)),
    }


def measure_methods(config: BenchmarkConfig, images: list[np.ndarray]) -> list[dict[str, Any]]:
    """Return a row for each method that works with the model; say how far it is."""
    names = methods.names() if config.methods == "all" else (config.methods or "").split(",")
    model = load_model(config.model, config.weights).prepared(torch.device("cpu"), "fp32")
    rows = []
    for name in names:
        reason = methods.get(name).refusal(model)
        if reason:
            print(f"{name}: {reason}", flush=True)
            continue
        row = measure_method(config, name, images)
        print(f"{name}: {row['ratio']:.2f} of its floor, {row['seconds']:.1f} s", flush=True)
        rows.append(row)
    return rows
