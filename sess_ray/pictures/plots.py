"""Pictures of an explanation for a notebook, with matplotlib (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from sess_ray.engine.fusion import min_max
from sess_ray.errors import SessError
from sess_ray.io import given
from sess_ray.pictures.overlay import OPACITY, windows_in_words
from sess_ray.resampling import upsampling
from sess_ray.windows import Size, fitted, sides

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sess_ray.engine.explanation import Explanation
    from sess_ray.io.given import ImageLike

COLORS = "inferno"


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise SessError("plots: needs matplotlib: install sess-ray[plot]") from error
    return pyplot


def pixels_of(image: ImageLike, explanation: Explanation) -> np.ndarray:
    """Return the pixels of the image that was explained, (H, W, 3) uint8, at the size of its map.

    Raises
    ------
    SessError
        If the image is of another size.
    """
    pixels = given.pixels_of(image)
    height, width = explanation.saliency.shape
    if pixels.shape[:2] != (height, width):
        if fitted(pixels.shape[0], pixels.shape[1], max(height, width)) == (height, width):  # SESS(max_map_side=...)
            return np.asarray(Image.fromarray(pixels).resize((width, height)))
        raise SessError(f"the image is {pixels.shape}, the map {height} x {width}: give the image that was explained")
    return pixels


def _show_under(axes: Any, image: np.ndarray | Image.Image, saliency: np.ndarray) -> Any:
    """Draw an image under the colours of its map; return the map's picture."""
    axes.imshow(image)
    return axes.imshow(saliency, cmap=COLORS, alpha=OPACITY, vmin=0, vmax=1)


def plot(explanation: Explanation, image: ImageLike) -> Figure:
    """Draw an image, and beside it the image under its map.

    Parameters
    ----------
    explanation : Explanation
    image : PIL image or (H, W, 3) uint8 array
        The one that was explained.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SessError
        If the image is of another size, or matplotlib is missing.
    """
    pixels = pixels_of(image, explanation)
    figure, (left, right) = _pyplot().subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    left.imshow(pixels)
    figure.colorbar(_show_under(right, pixels, explanation.saliency), ax=right)
    for axes in (left, right):
        axes.set_axis_off()
    name, kept = explanation.target_name, windows_in_words(explanation.num_kept, explanation.num_patches)
    figure.suptitle(f"{name}: p = {explanation.score:.3f}, {kept}", parse_math=False)
    return figure


def window_maps(explanation: Explanation, chosen: Sequence[int] | np.ndarray | slice = slice(None)) -> np.ndarray:
    """Return the maps of kept windows as fusion uses them: up-sampled to the window, each from 0 to 1.

    Parameters
    ----------
    explanation : Explanation
    chosen : sequence of int, optional
        Indices among the kept windows. By default all.

    Returns
    -------
    ndarray, (number chosen, h, w) float32
        h and w are the height and width of a window.

    Raises
    ------
    SessError
        If the maps were not kept.
    """
    if explanation.patch_maps is None:
        raise SessError("the maps of the windows are gone: explain with SESS(..., keep_maps=True)")
    maps = torch.from_numpy(explanation.patch_maps[chosen]).double()
    plan = explanation.plan
    axes = zip(maps.shape[1:], plan.sides, strict=True)
    rows, columns = (upsampling(cells, side, maps.device) for cells, side in axes)
    return (rows @ min_max(maps, plan.window) @ columns.T).clamp_(0, 1).float().numpy()


def best_first(explanation: Explanation) -> np.ndarray:
    """Return the indices of all windows, (P,) int, in reverse order of dropping by the pre-filter."""
    scores = np.where(explanation.patches["scored"], explanation.patches["score"], -np.inf)
    return np.argsort(scores, kind="stable")[::-1]


def rectangle(explanation: Explanation, window: int) -> tuple[float, float, float, float]:
    """Return (x0, y0, x1, y1) of a window in pixels of the image."""
    plan, (scale, y, x) = explanation.plan, explanation.patches[window].tolist()[:3]
    down, across = plan.height / plan.scales[scale].height, plan.width / plan.scales[scale].width
    height, width = plan.sides
    return x * across, y * down, (x + width) * across, (y + height) * down


def crop(pixels: np.ndarray, explanation: Explanation, window: int, size: Size) -> Image.Image:
    """Return the pixels of a window, resized to a size."""
    height, width = sides(size)
    return Image.fromarray(pixels).resize(
        (width, height), Image.Resampling.BILINEAR, box=_inside(rectangle(explanation, window), pixels.shape)
    )


def _inside(box: tuple[float, ...], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Clip coordinates that rounding has put outside of an image."""
    x0, y0, x1, y1 = box
    return max(0.0, x0), max(0.0, y0), min(float(shape[1]), x1), min(float(shape[0]), y1)


def plot_patches(explanation: Explanation, image: ImageLike, most: int = 15) -> Figure:
    """Draw where the kept windows are, and each under its own map, to show which scales and regions contribute.

    Tursun et al., SESS, ECCV 2022, figures 1 to 3.

    Parameters
    ----------
    explanation : Explanation
        From ``SESS(..., keep_maps=True)``.
    image : PIL image or (H, W, 3) uint8 array
        The one that was explained.
    most : int
        Number of windows to draw, highest scores first.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SessError
        If the maps were not kept, the image is of another size, or matplotlib is missing.
    """
    pixels = pixels_of(image, explanation)
    shown = best_first(explanation)[: min(max(1, most), explanation.num_kept)]
    maps = window_maps(explanation, np.cumsum(explanation.patches["kept"])[shown] - 1)
    pyplot = _pyplot()
    across = 6
    rows = 2 + -(-len(shown) // across)
    figure = pyplot.figure(figsize=(2 * across, 2.2 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, across)
    overview = figure.add_subplot(grid[:2, :3])
    overview.imshow(pixels)
    colors = pyplot.get_cmap("viridis")(np.linspace(0, 1, len(explanation.plan.scales)))
    for window in shown:
        x0, y0, x1, y1 = rectangle(explanation, window)
        color = colors[explanation.patches[window]["scale"]]
        overview.add_patch(pyplot.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=2))
    fused = figure.add_subplot(grid[:2, 3:])
    _show_under(fused, pixels, explanation.saliency)
    cells = [overview, fused]
    for place, window in enumerate(shown):
        axes = figure.add_subplot(grid[2 + place // across, place % across])
        _show_under(axes, crop(pixels, explanation, window, explanation.plan.window), maps[place])
        scale, _, _, score, *_ = explanation.patches[window].tolist()
        axes.set_title(f"scale {scale}, p = {score:.2f}", fontsize=9, color="black")
        cells.append(axes)
    for axes in cells:
        axes.set_axis_off()
    return figure
