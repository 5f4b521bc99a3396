"""Metrics that run the model on perturbed images.

For one map a metric needs the model's scores on a `Series` of inputs, which are made on demand. `scored` runs the model
on the series of many maps and metrics in full batches; `measure` turns the scores of each series into a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.blur import blurred, gaussian_kernel
from sess_ray.engine.cutting import Normalizer, Source, resized
from sess_ray.errors import SessError, unknown
from sess_ray.metrics.metric import Metric
from sess_ray.models import Model
from sess_ray.resampling import antialiased
from sess_ray.transfer import pixels_on, upload


@dataclass(frozen=True)
class Series:
    """Inputs that lead from one image to another, where each pixel changes once; `series[part]` makes a slice of them.

    Attributes
    ----------
    first, last : Tensor, (3, h, w)
        The images, in the model's input space.
    turn : Tensor, (h, w) int64
        Input k shows the last image where turn <= k, the first one elsewhere.
    count : int
        Number of inputs.
    """

    first: Tensor
    last: Tensor
    turn: Tensor
    count: int

    def __getitem__(self, part: slice) -> Tensor:
        """Return these inputs, (n, 3, h, w)."""
        steps = torch.arange(*part.indices(self.count), device=self.turn.device)
        return torch.where((self.turn <= steps[:, None, None])[:, None], self.last, self.first)


@dataclass(frozen=True)
class Preset:
    """One paper's choices for details of insertion and deletion that definitions leave open.

    Attributes
    ----------
    step : callable
        Takes height and width of the input, and returns the number of pixels that change at a time.
    kernel : Tensor, (odd number,) float64
        The kernel, for both axes, of the blur from which insertion starts.
    border : {"reflect", "constant"}
        How the blur extends the image beyond the border; see `sess_ray.blur.blurred`.
    """

    step: Callable[[int, int], int]
    kernel: Tensor
    border: Literal["reflect", "constant"]


def folded_kernel(size: int, sigma: float) -> Tensor:
    """Return what scipy's `gaussian_filter` makes of a delta amid `size` pixels, (size,) float64: nearly a box.

    It is a Gaussian cut at 4 sigma, its tails mirrored at the borders (border pixels repeated) as often as needed.
    """
    reach = int(4 * sigma + 0.5)
    positions = (torch.arange(-reach, reach + 1) + size // 2).remainder(2 * size)
    inside = torch.minimum(positions, 2 * size - 1 - positions)
    return torch.zeros(size, dtype=torch.float64).index_add_(0, inside, gaussian_kernel(2 * reach + 1, sigma))


PRESETS = {
    # Eight rows of pixels: 3.57 % of 224 x 224. Group-CAM's paper says 3.6 %; its release took these until August 2021.
    "rise": Preset(lambda _, width: 8 * width, folded_kernel(11, 5.0), "constant"),
    "groupcam": Preset(lambda _, width: 8 * width, gaussian_kernel(51, 50.0), "reflect"),
}


def deletion(image: Tensor, saliency: Tensor, preset: Preset) -> Series:
    """Return the series in which the image's pixels become the mean colour, the most salient ones first.

    Parameters
    ----------
    image : Tensor, (3, h, w) float32
        At the model's input size, normalised.
    saliency : Tensor, (h, w)
        Pixels of equal value change in row-major order; NaN counts as 0.
    preset : Preset

    Returns
    -------
    Series
        ceil(h w / step) + 1 inputs: the image itself, and one after each step.
    """
    return _step_by_step(image, torch.zeros_like(image), saliency, preset)


def insertion(image: Tensor, saliency: Tensor, preset: Preset) -> Series:
    """Return the series in which a blurred image gets its sharp pixels back, most salient first; like `deletion`."""
    return _step_by_step(blurred(image[None], preset.kernel, preset.border)[0], image, saliency, preset)


def masked(image: Tensor, saliency: Tensor) -> Series:
    """Return two inputs: the image, and the image times its map.

    Parameters
    ----------
    image : Tensor, (3, h, w) float32
        At the model's input size, normalised, so that pixels that the map hides take the mean colour.
    saliency : Tensor, (h, w)
        In 0..1; NaN counts as 0.
    """
    return Series(image, image * saliency.nan_to_num(0.0), torch.ones_like(saliency, dtype=torch.int64), count=2)


def _step_by_step(first: Tensor, last: Tensor, saliency: Tensor, preset: Preset) -> Series:
    step = preset.step(*saliency.shape)
    order = saliency.nan_to_num(0.0).flatten().argsort(descending=True, stable=True)
    turn = torch.empty_like(order)
    turn[order] = torch.arange(len(order), device=order.device) // step + 1
    return Series(first, last, turn.view_as(saliency), ceil(len(order) / step) + 1)


def auc(scores: np.ndarray) -> float:
    """Return the area under equally spaced scores over [0, 1], by the trapezoid rule."""
    values = np.asarray(scores, np.float64)
    return float((values[1:] + values[:-1]).mean() / 2)


def scored(model: Model, requests: Iterable[tuple[Series, int]], batch_size: int) -> Iterator[np.ndarray]:
    """Run the model on many series, in batches that are filled across series.

    Parameters
    ----------
    model : Model
        Prepared (`Model.prepared`); the series are on its device.
    requests : iterable of (Series, int)
        Series and their target classes. Each is taken when its inputs are needed, and not held longer.
    batch_size : int

    Yields
    ------
    numpy.ndarray, (count,) float64
        For each request in turn, the probability of the target on each input.
    """
    if batch_size < 1:
        raise SessError(f"batch_size is {batch_size}: use 1 or more")
    buffer = model.probe(batch_size).contiguous(memory_format=torch.channels_last)
    counts: deque[int] = deque()  # of the series that are not yet yielded
    found = np.empty(0)
    for inputs, targets, begun in _batches(requests, buffer):
        counts.extend(begun)
        found = np.concatenate([found, _probabilities(model, inputs, targets)])
        while counts and counts[0] <= len(found):
            own, found = np.split(found, [counts.popleft()])
            yield own


def _batches(requests: Iterable[tuple[Series, int]], buffer: Tensor) -> Iterator[tuple[Tensor, list[int], list[int]]]:
    """Yield batches in the buffer, the target of each input, and the counts of the series that begin in it."""
    targets: list[int] = []
    begun: list[int] = []
    for series, target in requests:
        begun.append(series.count)
        start = 0
        while start < series.count:
            filled = len(targets)
            stop = min(series.count, start + len(buffer) - filled)
            targets += [target] * (stop - start)
            buffer[filled : len(targets)].copy_(series[start:stop])
            start = stop
            if len(targets) == len(buffer):
                yield buffer, targets, begun
                targets, begun = [], []
    if targets:
        yield buffer[: len(targets)], targets, begun


@torch.no_grad()
def _probabilities(model: Model, inputs: Tensor, targets: list[int]) -> np.ndarray:
    classes = upload(torch.tensor(targets), inputs.device)
    return model.probabilities(model.logits(inputs)).gather(1, classes[:, None])[:, 0].double().cpu().numpy()


def at_input_size(pixels: np.ndarray, saliency: np.ndarray, model: Model) -> tuple[Tensor, Tensor]:
    """Return an image and its map as the metrics take them: resized to the model's input, on its device.

    Parameters
    ----------
    pixels : numpy.ndarray, (H, W, 3) uint8
    saliency : numpy.ndarray, (H, W)
        In 0..1; NaN counts as 0.
    model : Model

    Returns
    -------
    image : Tensor, (3, h, w) float32
        Normalised, exactly as `SESS` passes the whole image to the model.
    saliency : Tensor, (h, w) float32
        In 0..1, resampled like the image: bilinear, half-pixel centres, antialias.
    """
    (height, width), device = model.sides, model.probe(size=1).device
    placed = pixels_on(device, pixels).permute(2, 0, 1)
    source = Source(placed, Normalizer(model.mean, model.std, device))
    image = resized(source, height, width)(0, height).permute(2, 0, 1).contiguous()
    values = pixels_on(device, np.asarray(saliency, np.float32)).nan_to_num(0.0)
    return image, _shrunk(_shrunk(values, height).T.contiguous(), width).T.clamp(0, 1)


def _shrunk(lines: Tensor, count: int) -> Tensor:
    """Resample (n, m) to (count, m)."""
    positions, weights = antialiased(len(lines), count, lines.device)
    return F.embedding_bag(positions, lines, per_sample_weights=weights.float(), mode="sum")


class ModelMetric(Metric):
    """A metric of the model's scores on perturbed images, those of a series.

    Attributes
    ----------
    question : str
        Names the series: metrics with the same question can share its scores.
    """

    question: str

    def series(self, image: Tensor, saliency: Tensor) -> Series:
        """Return the series for an image and its map, both at the model's input size (`at_input_size`)."""
        raise NotImplementedError

    def measure(self, scores: np.ndarray) -> float:
        """Return the value of a map from the target's probability on each input of its series, (count,)."""
        raise NotImplementedError

    def ask(
        self,
        model: Model,
        image: Tensor,
        saliency: Tensor,
        target: int,
        *,
        key: str,
        label: str = "",
        batch_size: int = 8,
    ) -> float:
        """Run a prepared model on the series of one map, count the map's value and return it.

        Examples
        --------
        >>> from sess_ray import SESS, load_model
        >>> photograph = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
        >>> sess = SESS(load_model("squeezenet1_1", weights="random"), num_scales=None, device="cpu")
        >>> [[found]] = sess.explain([photograph])
        >>> image, saliency = at_input_size(photograph, found.saliency, sess.model)
        >>> metric = Deletion()
        >>> value = metric.ask(sess.model, image, saliency, found.target, key="noise.png")
        >>> 0 < value < 1, metric.n, abs(metric.summary().mean - value) < 1e-12
        (True, 1, True)
        """
        [scores] = scored(model, [(self.series(image, saliency), target)], batch_size)
        value = self.measure(scores)
        self.add(value, key=key, label=label)
        return value


class _Curve(ModelMetric):
    def __init__(self, preset: str = "rise") -> None:
        super().__init__()
        if preset not in PRESETS:
            raise unknown("preset", preset, PRESETS)
        self.preset = preset
        self.question = f"{self.name}_{preset}"

    def measure(self, scores: np.ndarray) -> float:
        return auc(scores)


class Insertion(_Curve):
    """Area under the target's probability while the most salient pixels are restored in a blurred image.

    Petsiuk et al., RISE, BMVC 2018. Presets: ``rise`` as in their release; ``groupcam`` as in Zhang et al., Group-CAM,
    2021.
    """

    name: ClassVar[str] = "insertion"

    def series(self, image: Tensor, saliency: Tensor) -> Series:
        return insertion(image, saliency, PRESETS[self.preset])


class Deletion(_Curve):
    """Area under the target's probability while the most salient pixels become the mean colour; like `Insertion`."""

    name: ClassVar[str] = "deletion"
    better = "lower"

    def series(self, image: Tensor, saliency: Tensor) -> Series:
        return deletion(image, saliency, PRESETS[self.preset])


class Overall(Metric):
    """Insertion minus deletion. Zhang et al., Group-CAM, 2021."""

    name: ClassVar[str] = "overall"

    def measure(self, insertion: float, deletion: float) -> float:
        return insertion - deletion


class _Masked(ModelMetric):
    question = "masked"

    def series(self, image: Tensor, saliency: Tensor) -> Series:
        return masked(image, saliency)


class AverageDrop(_Masked):
    """Share of the target's probability that is lost if the image is multiplied by its map: max(0, Y - O) / Y.

    In 0..1; a gain counts as 0, and so does a target of probability 0. Chattopadhay et al., Grad-CAM++, WACV 2018.
    """

    name: ClassVar[str] = "average_drop"
    better = "lower"

    def measure(self, scores: np.ndarray) -> float:
        whole, seen = map(float, scores)
        return max(0.0, whole - seen) / whole if whole else 0.0


class AverageIncrease(_Masked):
    """Whether the target's probability grows if the image is multiplied by its map, 1 or 0; like `AverageDrop`."""

    name: ClassVar[str] = "average_increase"

    def measure(self, scores: np.ndarray) -> float:
        whole, seen = scores
        return float(whole < seen)
