"""Resizing an image to its scales, and cutting out the windows, on the device that holds the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sess_ray.resampling import Rows, antialiased_axes
from sess_ray.transfer import Latest, upload
from sess_ray.windows import Plan, Scale

STRIP_PIXELS = 1 << 20  # pixels of a large image that are held as floats at a time
WIDE_NUMBERS = 1 << 25  # of all scales together, resized across alone
LARGER_ON_A_GPU = 16  # times as many: memory is wider there, and operations count
TABLE_BYTES = 1 << 26


class Normalizer:
    """Turns uint8 RGB pixels into the model's input range: (x / 255 - mean) / std.

    Parameters
    ----------
    mean, std : sequence of 3 floats
        In units of an image in 0..1, as the weights' metadata give them.
    """

    def __init__(self, mean: Iterable[float], std: Iterable[float], device: torch.device) -> None:
        scale = 1 / (255 * torch.tensor(list(std), dtype=torch.float64))
        shift = -torch.tensor(list(mean), dtype=torch.float64) * 255 * scale
        self.scale, self.shift = (upload(one.float().view(3, 1), device) for one in (scale, shift))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (n, 3, m) float32 for (n, 3, m) uint8."""
        return torch.addcmul(self.shift, pixels.float(), self.scale)


class Source:
    """An image to be resized to many sizes, normalised.

    Parameters
    ----------
    image : Tensor, (3, H, W) uint8
    normalize : Normalizer
    """

    def __init__(self, image: Tensor, normalize: Normalizer) -> None:
        self.device = image.device
        self.normalize = normalize
        _, self.rows, self.columns = image.shape
        # Columns first, as resampling reads them. Bytes are transposed: transposing floats takes five times as long.
        most = STRIP_PIXELS * (1 if image.device.type == "cpu" else LARGER_ON_A_GPU)
        strips = image.split(max(1, most // self.columns), 1)
        self._strips = [strip.permute(2, 0, 1).contiguous() for strip in strips]
        self._whole = normalize(self._strips[0]) if len(strips) == 1 else None

    def strips(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, (W, 3, rows) float32): a small image whole, made once; a large one in parts."""
        top = 0
        for strip in self._strips:
            yield top, self.normalize(strip) if self._whole is None else self._whole
            top += strip.shape[2]


@dataclass(frozen=True)
class Bags:
    """Antialiased resampling along one axis: the inputs and weights of each result.

    Attributes
    ----------
    positions, weights : Tensor, (target k,)
        The lines to read, k for each result, and their weights, float32.
    offsets : Tensor, (target,) int64
        Where each result's lines begin.
    """

    positions: Tensor
    weights: Tensor
    offsets: Tensor

    @property
    def nbytes(self) -> int:
        return self.positions.nbytes + self.weights.nbytes + self.offsets.nbytes

    def __call__(self, lines: Tensor, top: int = 0, bottom: int | None = None) -> Tensor:
        """Resample (n, m) to (bottom - top, m), all columns alike: contiguous memory."""
        positions, weights, offsets = self.positions, self.weights, self.offsets
        if bottom is not None:  # every result has equally many lines
            k = len(positions) // len(offsets)
            positions, weights = (values[top * k : bottom * k] for values in (positions, weights))
            offsets = offsets[: bottom - top]
        return F.embedding_bag(positions, lines, offsets, mode="sum", per_sample_weights=weights)


@dataclass(frozen=True)
class Tables:
    """How images of one size are resized to a window and to all scales of a plan, and where the windows are.

    Attributes
    ----------
    whole : tuple of Bags
        Across and down, for the whole image in one window.
    scales : list of tuple of Bags
    together : Bags
        Across, for all scales one after the other.
    lines, columns : Tensor, (P, h) and (P, w) int64
        The lines and columns of the scaled image that each window shows. On a CPU they and `together` are empty,
        because there windows are cut one by one.
    """

    whole: tuple[Bags, Bags]
    scales: list[tuple[Bags, Bags]]
    together: Bags
    lines: Tensor
    columns: Tensor

    @property
    def nbytes(self) -> int:
        bags = [self.whole, *self.scales]
        return (
            self.lines.nbytes
            + self.columns.nbytes
            + self.together.nbytes
            + sum(across.nbytes + down.nbytes for across, down in bags)
        )


def _tables(rows: int, columns: int, plan: Plan, device: torch.device) -> Tables:
    sizes = [plan.sides, *((scale.height, scale.width) for scale in plan.scales)]
    whole, *scales = _bags(rows, columns, sizes, device)
    if device.type == "cpu":
        nothing = torch.empty(0, dtype=torch.int64)
        return Tables(whole, scales, Bags(nothing, nothing, nothing), nothing, nothing)
    axes = [across for across, _ in scales]
    firsts, first = [], 0
    for bags in axes:
        firsts.append(torch.arange(len(bags.offsets)) * (len(bags.positions) // len(bags.offsets)) + first)
        first += len(bags.positions)
    together = Bags(
        torch.cat([bags.positions for bags in axes]),
        torch.cat([bags.weights for bags in axes]),
        upload(torch.cat(firsts), device),
    )
    places = upload(torch.tensor([(y, x) for _, y, x in plan.positions()]), device)
    down, across = (torch.arange(side, device=device) for side in plan.sides)
    return Tables(whole, scales, together, places[:, :1] + down, places[:, 1:] + across)


tables = Latest(_tables, TABLE_BYTES)


def _bags(rows: int, columns: int, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[tuple[Bags, Bags]]:
    """Return for each (height, width) how an image is resized to it: first across, then down."""
    axes = [(columns, width) for _, width in sizes] + [(rows, height) for height, _ in sizes]
    unlike = list(dict.fromkeys(axes))
    taken = dict(zip(unlike, antialiased_axes(unlike, device, torch.float32), strict=True))
    counts = {positions.shape[1] for positions, _ in taken.values()}
    longest = torch.arange(max(target for _, target in unlike), device=device)
    begins = {k: longest * k for k in counts}
    made = {
        axis: Bags(positions.flatten(), weights.flatten(), begins[positions.shape[1]][: axis[1]])
        for axis, (positions, weights) in taken.items()
    }
    return [(made[columns, width], made[rows, height]) for height, width in sizes]


def resized(source: Source, height: int, width: int) -> Rows:
    """Resize an image: bilinear, half-pixel centres, antialias, as torchvision's `Resize` does it.

    Parameters
    ----------
    source : Source
    height, width : int
        Size of the result.

    Returns
    -------
    callable
        Takes (top, bottom) and returns those rows of the result, (bottom - top, width, 3) float32.
    """
    [bags] = _bags(source.rows, source.columns, [(height, width)], source.device)
    return _resized(source, *bags)


def _resized(source: Source, across: Bags, down: Bags) -> Rows:
    """Resize an image: the width first, strip by strip, so that it needs little more memory than its result.

    The height follows row by row, as rows are asked for.
    """
    return _rows(_wide(source, across, len(across.offsets)), down)


def _rows(wide: Tensor, down: Bags) -> Rows:
    return lambda top, bottom: down(wide, top, bottom).view(bottom - top, -1, 3)


def _wide(source: Source, across: Callable[[Tensor], Tensor], width: int) -> Tensor:
    """Return an image resized across, (rows, width 3)."""
    wide = torch.empty(source.rows, width * 3, device=source.device)
    for top, strip in source.strips():
        rows = strip.shape[2]
        wide[top : top + rows] = across(strip.flatten(1)).view(width * 3, rows).T
    return wide


def whole(source: Source, plan: Plan) -> Tensor:
    """Return the whole image in one window, (1, 3, h, w) float32."""
    across, down = tables(source.rows, source.columns, plan, source.device).whole
    return _resized(source, across, down)(0, plan.sides[0]).permute(2, 0, 1)[None]


def runs(source: Source, plan: Plan, windows: Sequence[int]) -> Iterator[Tensor]:
    """Yield windows of an image, several at a time, with one scale in memory.

    Parameters
    ----------
    source : Source
    plan : Plan
    windows : sequence of int
        The windows to yield, ascending.

    Yields
    ------
    Tensor, (n, 3, h, w) float32
        On a CPU a view of one window: copy it before taking the next. Elsewhere all windows of a scale.
    """
    found = tables(source.rows, source.columns, plan, source.device)
    cut_scale = _one_by_one if source.device.type == "cpu" else _together
    width = len(found.together.offsets)
    at_once = len(windows) == plan.num_patches and 0 < source.rows * width * 3 <= WIDE_NUMBERS
    wide = _wide(source, found.together, width) if at_once else None
    places = iter(windows)
    window, first = next(places, None), 0
    for scale, part, (across, down) in zip(plan.scales, plan.slices(), found.scales, strict=True):
        own = []
        while window is not None and window < part.stop:
            own.append(window)
            window = next(places, None)
        if own:
            if wide is None:
                rows = _resized(source, across, down)
            else:
                rows = _rows(wide[:, first * 3 : (first + scale.width) * 3], down)
            yield from cut_scale(rows, scale, plan.sides, own, part.start, found)
        first += scale.width


def _one_by_one(
    rows: Rows, scale: Scale, sides: tuple[int, int], windows: list[int], first: int, _: Tables
) -> Iterator[Tensor]:
    height, width = sides
    count, line, above = len(scale.xs), None, -1
    for window in windows:
        row, column = divmod(window - first, count)
        if row != above:
            line, above = rows(scale.ys[row], scale.ys[row] + height), row
        assert line is not None
        x = scale.xs[column]
        yield line[:, x : x + width].permute(2, 0, 1)[None]


def _together(
    rows: Rows, scale: Scale, _sides: tuple[int, int], windows: list[int], _first: int, found: Tables
) -> Iterator[Tensor]:
    lines, columns = (taken(values, windows) for values in (found.lines, found.columns))
    yield rows(0, scale.height)[lines[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def taken(values: Tensor, places: Sequence[int]) -> Tensor:
    """Return values[places] for ascending places; a view if they are consecutive."""
    if places[-1] - places[0] == len(places) - 1:
        return values[places[0] : places[-1] + 1]
    return values[upload(torch.tensor(places), values.device)]


def cut(source: Source, plan: Plan, windows: Sequence[int] | None = None) -> Iterator[Tensor]:
    """Yield the windows of an image, all or some of them, one by one: (3, h, w) float32; as `runs`."""
    for run in runs(source, plan, range(plan.num_patches) if windows is None else windows):
        yield from run
