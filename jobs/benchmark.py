"""Measure the engine and the whole job against their floor.

The floor is the scoring forward alone: the same windows, batch size and precision, preloaded, in a plain torch loop.
Floor and engine take turns image by image, so that a busy machine slows both; a ratio is one of sums.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from cyclopts import Parameter

from sess_ray import command, methods
from sess_ray.explainer import SESS
from sess_ray.io.decode import decode
from sess_ray.io.inputs import ITEMS, Item, find_images
from sess_ray.io.reading import read_items
from sess_ray.models import load_model
from sess_ray.patches import Source, cut
from sess_ray.pipeline.config import DEMO_MODEL, ExplainConfig
from sess_ray.tables import markdown

app = command.command("benchmark.py", __doc__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure.

    Parameters
    ----------
    input
        Images, as for explain_dataset.py; without it, the sample images.
    model, weights, method, num_scales, precision, batch_size
        As for explain_dataset.py; weights may be "random".
    ratios
        Pre-filter ratios of the engine, one target.
    targets
        Measure this many targets too, at the last ratio.
    images
        Images for the engine; taken again from the start where there are fewer.
    job_images
        Images for the whole job; 0 leaves it out.
    methods
        Measure these methods instead, names separated by commas or "all": their passes for each kept patch, and the
        time of the engine over that of its passes alone, at the last ratio.
    method_option
        For `methods`: NAME.key=value; may be given several times.
    json
        Write the figures to this file.
    """

    input: str | None = None
    model: str = DEMO_MODEL
    weights: str | None = None
    method: str = "gradcam"
    num_scales: int = 12
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int | None = None
    ratios: tuple[float, ...] = (0.0, 0.5, 0.9)
    targets: int = 5
    images: int = 12
    job_images: int = 0
    methods: str = ""
    method_option: tuple[str, ...] = ()
    json: str | None = None


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(function: Any, *arguments: Any) -> float:
    """Return the seconds that a call takes."""
    synchronize()
    begin = time.perf_counter()
    function(*arguments)
    synchronize()
    return time.perf_counter() - begin


def batches(sess: SESS, pixels: np.ndarray) -> list[torch.Tensor]:
    """Return the windows of an image as the engine batches them, ready on the device."""
    source = Source(torch.from_numpy(pixels.copy()).to(sess.device).permute(2, 0, 1), sess.normalizer)
    windows = [window.to(sess.dtype, copy=True) for window in cut(source, sess.plan(*pixels.shape[:2]))]
    return [
        torch.stack(windows[i : i + sess.batch_size]).contiguous(memory_format=torch.channels_last)
        for i in range(0, len(windows), sess.batch_size)
    ]


@torch.inference_mode()
def forward(sess: SESS, loaded: list[torch.Tensor]) -> None:
    """Run the floor: nothing but the forward passes."""
    for batch in loaded:
        sess.model.module(batch)


def measure_core(config: BenchmarkConfig, images: list[np.ndarray]) -> dict[str, Any]:
    """Return seconds per image of floor and engine, and their ratios."""
    model = load_model(config.model, config.weights)
    shared = {
        "method": config.method,
        "num_scales": config.num_scales,
        "precision": config.precision,
        "batch_size": config.batch_size,
    }
    engines = {f"r = {ratio:g}": (SESS(model, pre_filter_ratio=ratio, **shared), "top1") for ratio in config.ratios}  # type: ignore[arg-type]
    last = SESS(model, pre_filter_ratio=config.ratios[-1], **shared)  # type: ignore[arg-type]
    engines[f"r = {config.ratios[-1]:g}, {config.targets} targets"] = (last, f"top{config.targets}")
    engines["without SESS"] = (SESS(model, **{**shared, "num_scales": None}), "top1")  # type: ignore[arg-type]
    seconds: dict[str, list[float]] = {"floor": [], **{name: [] for name in engines}}
    windows = 0
    for turn, pixels in enumerate([images[0], *images]):  # the first turn warms up
        loaded = batches(last, pixels)
        forward(last, loaded)
        found = {"floor": timed(forward, last, loaded)}
        for name, (sess, targets) in engines.items():
            found[name] = timed(sess.explain, [pixels], targets)
        found["floor"] = (found["floor"] + timed(forward, last, loaded)) / 2
        if turn:
            windows += last.plan(*pixels.shape[:2]).num_patches
            for name, value in found.items():
                seconds[name].append(value)
    totals = {name: sum(values) for name, values in seconds.items()}
    return {
        "images": len(images),
        "windows": windows,
        "batch_size": last.batch_size,
        "device": str(last.device),
        "threads": torch.get_num_threads(),
        "floor_ms_per_window": 1000 * totals["floor"] / windows,
        "ratio": {name: total / totals["floor"] for name, total in totals.items() if name != "floor"},
        "ratio_of_medians": {
            name: float(np.median(values) / np.median(seconds["floor"]))
            for name, values in seconds.items()
            if name != "floor"
        },
    }


def measure_job(config: BenchmarkConfig, items: list[Item], images: list[np.ndarray]) -> dict[str, Any]:
    """Return seconds per window of the whole job after start-up, and its ratio to the floor around it."""
    from sess_ray.pipeline.explain import prepare, stream
    from sess_ray.pipeline.session import connect
    from sess_ray.pipeline.targets import resolve

    sess = SESS(load_model(config.model, config.weights), num_scales=config.num_scales, precision=config.precision)
    loaded = [batch for pixels in images[:3] for batch in batches(sess, pixels)]
    count = sum(len(batch) for batch in loaded)
    with tempfile.TemporaryDirectory() as output:
        settings = ExplainConfig(
            input=config.input,
            output=output,
            model=config.model,
            weights=config.weights,
            method=config.method,
            num_scales=config.num_scales,
            precision=config.precision,
            batch_size=config.batch_size,
        )
        job = prepare(settings)
        repeated = [
            {**vars(item), "image_id": f"{number}/{item.image_id}"}
            for number, item in enumerate(islice(cycle(items), config.job_images))
        ]
        job = dataclasses.replace(job, tasks=resolve(pa.Table.from_pylist(repeated, ITEMS), "top1", job.model))
        connect(None)
        forward(sess, loaded)
        floor = [timed(forward, sess, loaded) / count for _ in range(3)]
        begin, first, windows = time.perf_counter(), 0.0, 0
        for counts in stream(job):
            if first:
                windows += counts["windows"]
            first = first or time.perf_counter()
        end = time.perf_counter()
        floor += [timed(forward, sess, loaded) / count for _ in range(3)]
    per_window = (end - first) / windows
    return {
        "images": config.job_images,
        "windows": windows,
        "seconds_to_first_rows": first - begin,
        "ms_per_window": 1000 * per_window,
        "floor_ms_per_window": 1000 * float(np.mean(floor)),
        "ratio": per_window / float(np.mean(floor)),
    }


class Recorder:
    """Notes the passes through a model: the shape of each batch, and whether a gradient comes back to the pixels."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.passes: list[tuple[tuple[int, ...], bool]] = []
        self.handle = module.register_forward_pre_hook(self._note)

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
    options = command.options_of(name, config.method_option)
    sess = SESS(
        load_model(config.model, config.weights),
        method=name,
        num_scales=config.num_scales,
        pre_filter_ratio=config.ratios[-1],
        precision=config.precision,
        batch_size=config.batch_size,
        method_options=options,
    )
    recorder = Recorder(sess.model.module)
    found = sess.explain(images)
    recorder.handle.remove()
    floor = [recorder.replay(sess)]
    seconds = timed(sess.explain, images)
    floor.append(recorder.replay(sess))
    kept = sum(explanation.num_kept for [explanation] in found)
    side = sess.model.input_size
    scored = sum(explanation.num_patches + (explanation.num_patches > 1) for [explanation] in found)
    forwards = sum(shape[0] * shape[2] * shape[3] / side**2 for shape, _ in recorder.passes) - scored
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


def _measure_methods(config: BenchmarkConfig, images: list[np.ndarray]) -> list[dict[str, Any]]:
    names = methods.names() if config.methods == "all" else config.methods.split(",")
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
    cells = [
        (row["method"], f"{row['forwards']:.1f}", f"{row['backwards']:.1f}", f"{row['ratio']:.2f}") for row in rows
    ]
    print(markdown([("method", "forwards", "backwards", "time / floor"), *cells]))
    return rows


def _images(config: BenchmarkConfig) -> tuple[list[Item], list[np.ndarray]]:
    from sess_ray import demo

    items = demo.images() if config.input is None else find_images(config.input)

    def decoded() -> Iterator[np.ndarray]:
        for item in cycle(items):
            [content] = read_items([item.uri])
            if isinstance(content, bytes):
                yield decode(content)

    return items, list(islice(decoded(), config.images))


@app.default
def benchmark(config: Annotated[BenchmarkConfig, Parameter(name="*")] = BenchmarkConfig()) -> int:
    """Measure, print and store."""
    items, images = _images(config)
    result: dict[str, Any]
    if config.methods:
        result = {"config": dataclasses.asdict(config), "methods": _measure_methods(config, images)}
        _store(result, config.json)
        return 0
    result = {"config": dataclasses.asdict(config), "core": measure_core(config, images)}
    core = result["core"]
    print(
        f"{config.model}, {config.method}, {config.num_scales} scales, {config.precision}, batch {core['batch_size']}"
    )
    print(f"floor: {core['floor_ms_per_window']:.2f} ms a window ({core['windows']} windows, {core['device']})")
    for name, ratio in core["ratio"].items():
        print(f"core / floor, {name}: {ratio:.3f} (of medians {core['ratio_of_medians'][name]:.3f})")
    if config.job_images:
        result["job"] = job = measure_job(config, items, images)
        print(f"job / floor: {job['ratio']:.3f} ({job['windows']} windows; floor {job['floor_ms_per_window']:.2f} ms)")
        print(f"first rows after {job['seconds_to_first_rows']:.1f} s")
    _store(result, config.json)
    return 0


def _store(result: dict[str, Any], path: str | None) -> None:
    if path:
        with open(path, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    command.leave(command.run(app, sys.argv[1:]))
