"""Masks that follow the edges of an image, starting from the map of its object.

A refinement is a callable (pixels (H, W, 3) uint8, saliency (H, W), threshold) -> mask (H, W) bool. Random numbers are
seeded: the same arguments give the same mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sess_ray.errors import SessError, unknown
from sess_ray.metrics.localization import min_max, reaches

Refinement = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class GrabCut:
    """OpenCV's GrabCut: a graph cut between two mixtures of colours, fitted and cut in turns.

    Rother et al., GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts, SIGGRAPH 2004; a map takes the
    place of the user's strokes: pixels below `background` are not part of the object, pixels from `foreground` up
    certainly are, and for the rest the threshold gives the initial guess.

    Parameters
    ----------
    background, foreground : float
        Shares of the map's maximum.
    iterations : int
    side : int
        Pixels to which the longer side of an image is reduced; the mask is enlarged again, bilinearly.
    """

    background: float = 0.1
    foreground: float = 0.6
    iterations: int = 2
    side: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.background <= self.foreground <= 1:
            raise SessError(
                f"grabcut: background={self.background}, foreground={self.foreground}: use shares of the map's maximum,"
                " 0 to 1, the first not above the second"
            )
        if self.iterations < 1 or self.side < 1:
            raise SessError(f"grabcut: iterations={self.iterations}, side={self.side}: use 1 or more")

    def __call__(self, pixels: np.ndarray, saliency: np.ndarray, threshold: float) -> np.ndarray:
        """Return the mask, (H, W) bool; if GrabCut leaves nothing of it, the mask of the threshold.

        Parameters
        ----------
        pixels : ndarray, (H, W, 3) uint8
        saliency : ndarray, (H, W)
        threshold : float
            Share of the map's maximum.

        Raises
        ------
        SessError
            If OpenCV is missing.
        """
        cv2 = opencv()
        values = min_max(saliency).astype(np.float32)
        small, colors = (_shrunk(array, self.side) for array in (values, pixels))
        state = np.where(small >= threshold, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
        state[small < self.background] = cv2.GC_BGD
        state[small >= self.foreground] = cv2.GC_FGD
        state = state.astype(np.uint8)
        if len({*np.unique(state & 1)}) < 2:  # object or background has no pixel from which to learn its colours
            return reaches(saliency, threshold)
        cv2.setRNGSeed(0)  # for the k-means that initialises the mixtures
        mixtures = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(np.ascontiguousarray(colors), state, None, *mixtures, self.iterations, cv2.GC_INIT_WITH_MASK)
        mask = (state & 1).astype(np.float32)  # GC_FGD and GC_PR_FGD are odd
        found = cv2.resize(mask, values.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
        return found if found.any() else reaches(saliency, threshold)


REFINEMENTS: dict[str, type[GrabCut]] = {"grabcut": GrabCut}


def refinement(name: str, options: Mapping[str, str] | None = None) -> Refinement:
    """Return a refinement by its name, with checked options.

    Parameters
    ----------
    name : str
        One of `REFINEMENTS`.
    options : mapping of str to str, optional
        Its parameters, as given on a command line.

    Raises
    ------
    SessError
        If there is no such refinement or option, a value does not fit, or its package is missing.

    Examples
    --------
    >>> refinement("grabcut", {"iterations": "3"})
    GrabCut(background=0.1, foreground=0.6, iterations=3, side=200)
    """
    if name not in REFINEMENTS:
        raise unknown("refinement", name, REFINEMENTS)
    kind = REFINEMENTS[name]
    defaults: dict[str, Any] = {field.name: field.default for field in fields(kind)}
    given = {}
    for key, text in (options or {}).items():
        if key not in defaults:
            raise unknown(f"option of {name}", key, defaults)
        try:
            given[key] = type(defaults[key])(text)
        except ValueError as error:
            what = "a whole number" if isinstance(defaults[key], int) else "a number"
            raise SessError(f"{name}: {key}={text}: use {what}") from error
    opencv()
    return kind(**given)


def _shrunk(array: np.ndarray, side: int) -> np.ndarray:
    """Return (H, W, ...) reduced to at most so many pixels on the longer side, each a mean of those it replaces."""
    cv2 = opencv()
    height, width = array.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return array
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA)


def opencv() -> Any:
    """Return OpenCV's module; `SessError` if it is missing."""
    try:
        import cv2
    except ImportError as error:
        raise SessError("refinement by grabcut: needs OpenCV: install sess-ray[refine]") from error
    return cv2
