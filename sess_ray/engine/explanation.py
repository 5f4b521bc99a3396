"""What SESS returns: a map, and every window from which it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sess_ray.io.given import ImageLike
from sess_ray.windows import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sess_ray.pictures.notebook import Html

PATCH_DTYPE = np.dtype([("scale", "i4"), ("y", "i4"), ("x", "i4"), ("score", "f4"), ("scored", "?"), ("kept", "?")])


@dataclass(frozen=True)
class Explanation:
    """One saliency map of one image, for one class or group of classes.

    Attributes
    ----------
    saliency : numpy.ndarray, (H, W) float32
        The map, in 0..1, at the image's own size or, with ``max_map_side``, smaller.
    target : int
        What is explained: the index of a class, or for a group its index after the classes (`sess_ray.models.groups`).
    target_name : str
    target_classes : tuple of int
        The class, or the classes of the group.
    score : float
        Probability of the target on the whole image, resized to the model's input (`sess_ray.models.scores`).
    predicted, predicted_name, predicted_score : int, str, float
        The most likely class on the whole image.
    patches : numpy.ndarray, (P,) structured
        Every window: ``scale`` (index), ``y``, ``x`` (in pixels of the scaled image), ``score`` (probability of the
        target; NaN if the window was not scored), ``scored`` (for this target), ``kept`` (by the pre-filter).
        ``pandas.DataFrame(explanation.patches)`` makes a data frame of it.
    plan : Plan
        The scales and windows.
    patch_maps : numpy.ndarray, (K, u, v) float32, or None
        The base method's maps of the K kept windows, in their order; only with ``SESS(keep_maps=True)``.
    """

    saliency: np.ndarray
    target: int
    target_name: str
    target_classes: tuple[int, ...]
    score: float
    predicted: int
    predicted_name: str
    predicted_score: float
    patches: np.ndarray
    plan: Plan
    patch_maps: np.ndarray | None = None

    @property
    def num_patches(self) -> int:
        return len(self.patches)

    @property
    def num_scored(self) -> int:
        return int(self.patches["scored"].sum())

    @property
    def num_forwards(self) -> int:
        """Number of windows of the image that were scored, for all of its targets together."""
        return int(np.isfinite(self.patches["score"]).sum())

    @property
    def num_kept(self) -> int:
        return int(self.patches["kept"].sum())

    @property
    def peak(self) -> tuple[int, int]:
        """(x, y) of the first maximum of the map."""
        y, x = np.unravel_index(self.saliency.argmax(), self.saliency.shape)
        return int(x), int(y)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the map in colours (`show` lays it over its image)."""
        return self.show()._repr_html_()

    def show(self, image: ImageLike | None = None) -> Html:
        """Return the map as a picture for a notebook, over the explained image if that is given.

        Raises
        ------
        SessError
            If the image has another size.
        """
        from sess_ray.pictures.notebook import Html, figure
        from sess_ray.pictures.overlay import windows_in_words
        from sess_ray.pictures.plots import pixels_of

        predicted = "as predicted" if self.predicted in self.target_classes else f"predicted: {self.predicted_name}"
        pixels = None if image is None else pixels_of(image, self)
        windows = windows_in_words(self.num_kept, self.num_patches)
        return Html(figure(self.saliency, pixels, f"{self.target_name}: {self.score:.1%}", predicted, windows))

    def plot(self, image: ImageLike) -> Figure:
        """Draw the image and its map, with matplotlib; see `sess_ray.pictures.plots.plot`."""
        from sess_ray.pictures.plots import plot

        return plot(self, image)

    def plot_patches(self, image: ImageLike, most: int = 15) -> Figure:
        """Draw the kept windows, highest scores first; see `sess_ray.pictures.plots.plot_patches`."""
        from sess_ray.pictures.plots import plot_patches

        return plot_patches(self, image, most)


def patch_table(plan: Plan, scores: np.ndarray, scored: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return a row of `PATCH_DTYPE` for each window, from its score (NaN if there is none) and its flags."""
    table = np.empty(plan.num_patches, PATCH_DTYPE)
    table["scale"], table["y"], table["x"] = np.array(plan.positions()).T
    table["score"], table["scored"], table["kept"] = scores, scored, kept
    return table
