"""What a benchmark measures, and what its parts share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from typing import Annotated, Any

import numpy as np
import torch

from sess_ray.engine.cutting import Source, cut
from sess_ray.engine.sess import SESS
from sess_ray.io.decode import shrunk
from sess_ray.io.inputs import find_images
from sess_ray.io.items import Item
from sess_ray.io.reading import read_items
from sess_ray.models import Model, load_model
from sess_ray.pipeline.cluster.flags import INPUT, MEASUREMENT, METHOD, MODEL, OUTPUT, WINDOWS, check
from sess_ray.pipeline.explain.config import DEMO_MODEL
from sess_ray.precision import Precision
from sess_ray.windows import needed


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure.

    Parameters
    ----------
    input
        Images, as for sess-ray explain. By default the sample images.
    model
        A classifier, as for sess-ray explain.
    weights
        The model's weights, a file or "random". By default the pretrained ones.
    method
        Base saliency method.
    num_scales
        Number of scales, as for sess-ray explain.
    max_map_side
        Make maps whose longer side has at most this many pixels.
    precision
        The model's precision. If several are given, each combination with a batch size is measured, in turns image by
        image.
    batch_size
        Windows in one forward pass; several as for --precision. By default 8 on a CPU, and on a GPU 256 of
        224 x 224 pixels, more of smaller and fewer of larger ones.
    ratios
        Pre-filter ratios at which the engine is measured, with one target.
    targets
        Measure the engine with this many targets, too.
    pre_filter_ratio
        Share of windows that is dropped, where --ratios does not set it. By default the method's own.
    images
        Images for the engine; if there are fewer, they are used repeatedly.
    job_images
        Images for the whole job, with one worker and with all; 0 leaves it out.
    feed
        Measure only what a CPU does for a GPU that explains this many images a second, stage by stage, and how many
        cores that takes.
    methods
        Measure only these methods, names separated by commas or "all": their passes for each kept patch, and the time
        of the engine over that of its passes alone.
    method_option
        With --methods: an option as NAME.key=value; may be given several times.
    json
        Write the figures to this file, and a picture of them beside it.
    compare
        Two files that --json wrote: measure nothing, and print what differs between them.
    """

    input: Annotated[str | None, INPUT] = None
    model: Annotated[str, MODEL] = DEMO_MODEL
    weights: Annotated[str | None, MODEL] = None
    method: Annotated[str, METHOD] = "gradcam"
    num_scales: Annotated[int, WINDOWS] = 12
    max_map_side: Annotated[int | None, OUTPUT] = None
    precision: Annotated[tuple[Precision, ...], MODEL] = ("fp32",)
    batch_size: Annotated[tuple[int, ...], MODEL] = ()
    ratios: Annotated[tuple[float, ...], WINDOWS] = (0.0, 0.5, 0.9)
    targets: Annotated[int, MEASUREMENT] = 5
    pre_filter_ratio: Annotated[float | None, WINDOWS] = None
    images: Annotated[int, INPUT] = 12
    job_images: Annotated[int, INPUT] = 0
    feed: Annotated[float, MEASUREMENT] = 0.0
    methods: Annotated[str | None, METHOD] = None
    method_option: Annotated[tuple[str, ...], METHOD] = ()
    json: Annotated[str | None, OUTPUT] = None
    compare: Annotated[tuple[str, str] | None, MEASUREMENT] = None

    def __post_init__(self) -> None:
        check(vars(self))


def engine(config: BenchmarkConfig, **settings: Any) -> SESS:
    """Return the engine at the first precision and batch size, but for `settings`."""
    shared = {
        "method": config.method,
        "num_scales": config.num_scales,
        "max_map_side": config.max_map_side,
        "precision": config.precision[0],
        "batch_size": config.batch_size[0] if config.batch_size else None,
        "pre_filter_ratio": config.pre_filter_ratio,
    }
    return SESS(_loaded(config.model, config.weights), **{**shared, **settings})


@cache
def _loaded(model: str, weights: str | None) -> Model:
    return load_model(model, weights)


def inputs(config: BenchmarkConfig) -> tuple[list[Item], list[np.ndarray]]:
    """Return what the input holds, and as many decoded images as the engine is measured on."""
    from sess_ray import demo

    items = demo.images() if config.input is None else find_images(config.input)

    def images() -> Iterator[np.ndarray]:
        for item in cycle(items):
            [content] = read_items([item.uri])
            if isinstance(content, bytes):
                yield decoded(config, content)

    return items, list(islice(images(), config.images))


def decoded(config: BenchmarkConfig, content: bytes) -> np.ndarray:
    """Return an image as the job would decode it."""
    side = _loaded(config.model, config.weights).input_size
    pixels, _ = shrunk(content, needed=needed(side, config.num_scales, config.max_map_side))
    return pixels


def timed(function: Callable[..., object], *arguments: object) -> float:
    """Return the seconds that a call takes, on the GPU too."""
    _synchronize()
    begin = time.perf_counter()
    function(*arguments)
    _synchronize()
    return time.perf_counter() - begin


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def batches(sess: SESS, pixels: np.ndarray) -> list[torch.Tensor]:
    """Return the windows of an image as the engine batches them, ready on the device."""
    source = Source(torch.from_numpy(pixels.copy()).to(sess.device).permute(2, 0, 1), sess.normalizer)
    windows = [window.to(sess.dtype, copy=True) for window in cut(source, sess.plan(*pixels.shape[:2]))]
    return [
        torch.stack(windows[i : i + sess.batch_size]).contiguous(memory_format=torch.channels_last)
        for i in range(0, len(windows), sess.batch_size)
    ]


@torch.inference_mode()
def forward(module: torch.nn.Module, loaded: list[torch.Tensor]) -> int:
    """Run the floor, nothing but the forward passes; return the number of windows."""
    for batch in loaded:
        module(batch)
    return sum(map(len, loaded))
