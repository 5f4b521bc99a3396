"""The metrics of an evaluation, as a table of what each measures and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sess_ray.errors import SessError
from sess_ray.metrics.localization import DifficultPointingGame, EnergyPointingGame, PointingGame
from sess_ray.metrics.metric import Metric
from sess_ray.metrics.perturbation import AverageDrop, AverageIncrease, Deletion, Insertion, Overall
from sess_ray.metrics.thresholds import CorLoc, MaskIoU, MaxBoxAcc, MaxBoxAccV2, PooledPxAP, PxAP

Value = float | np.ndarray | None


@dataclass(frozen=True)
class Facts:
    """What the annotations say about a map's target in its image.

    Attributes
    ----------
    region : ndarray, (H, W) bool
        The target's pixels: its segments, or its boxes.
    covered : ndarray, (H, W) bool
        The pixels that its boxes cover.
    boxes : ndarray, (n, 4)
        x0, y0, x1, y1 in pixels, the last two exclusive.
    segments : ndarray, (H, W) bool, or None
        The target's pixels by its outlines, if all its objects have one.
    difficult : bool
        Whether the target is small, and objects of other classes are in the image.
    peak : (int, int)
        x and y of the map's maximum before it was stored, or by the pointing game's protocol.
    ignored : ndarray, (H, W) bool, or None
        Pixels that count neither for nor against the map: crowds of the target, and objects of it marked difficult.
    """

    region: np.ndarray
    covered: np.ndarray
    boxes: np.ndarray
    segments: np.ndarray | None
    difficult: bool
    peak: tuple[int, int]
    ignored: np.ndarray | None = None


@dataclass(frozen=True)
class Entry:
    """A metric of the suite: `compare` needs annotations, `derive` two other metrics, all others run the model."""

    make: Callable[[], Metric]
    compare: Callable[[Metric, np.ndarray, Facts], Value] | None = None
    derive: tuple[str, str] | None = None
    package: str = ""  # that it needs, in addition to the required dependencies

    @property
    def curve(self) -> bool:
        """Whether a map's value is an array."""
        return self.make().curve

    @property
    def asks(self) -> bool:
        """Whether the model is run."""
        return self.compare is None and self.derive is None


def _perturbing(preset: str) -> dict[str, Entry]:
    return {
        f"insertion_{preset}": Entry(partial(Insertion, preset)),
        f"deletion_{preset}": Entry(partial(Deletion, preset)),
        f"overall_{preset}": Entry(Overall, derive=(f"insertion_{preset}", f"deletion_{preset}")),
    }


def _point(metric: Metric, saliency: np.ndarray, facts: Facts) -> Value:
    return metric.measure(saliency, facts.region, peak=facts.peak)


def _box(metric: Metric, saliency: np.ndarray, facts: Facts) -> Value:
    return metric.measure(saliency, facts.boxes)


def _pixels(metric: Metric, saliency: np.ndarray, facts: Facts) -> Value:
    if facts.ignored is None:
        return metric.measure(saliency, facts.region)
    left = (facts.region & ~facts.ignored).any()
    return metric.measure(saliency, facts.region, ignored=facts.ignored) if left else None


# In the order of tables: first the metrics that no change of a map's contrast affects.
SUITE: dict[str, Entry] = {
    "pxap": Entry(PxAP, _pixels),
    "pointing_game": Entry(PointingGame, _point),
    "pointing_game_difficult": Entry(
        DifficultPointingGame, lambda metric, map_, facts: _point(metric, map_, facts) if facts.difficult else None
    ),
    "max_box_acc_v2": Entry(MaxBoxAccV2, _box, package="scipy"),
    "max_box_acc": Entry(MaxBoxAcc, _box, package="scipy"),
    "corloc": Entry(CorLoc, _box, package="scipy"),
    "mask_iou": Entry(
        MaskIoU,
        lambda metric, map_, facts: None if facts.segments is None else metric.measure(map_, facts.segments),
    ),
    "pxap_pooled": Entry(PooledPxAP, _pixels),
    "energy_pointing_game": Entry(EnergyPointingGame, lambda metric, map_, facts: metric.measure(map_, facts.covered)),
    **_perturbing("rise"),
    **_perturbing("groupcam"),
    "average_drop": Entry(AverageDrop),
    "average_increase": Entry(AverageIncrease),
}


def choose(names: Iterable[str], *, annotated: bool) -> list[str]:
    """Return the names of metrics of the suite, by name or by the beginning of a name ("insertion" means both presets).

    Parameters
    ----------
    names : iterable of str
        Names; if there are none, all metrics that can be computed.
    annotated : bool
        Whether there are annotations.

    Raises
    ------
    SessError
        If no metric has such a name, or if it needs annotations and there are none.
    """
    able = {name: entry for name, entry in SUITE.items() if annotated or entry.compare is None}
    wanted: set[str] = set()
    for given in names:
        found = {name for name in SUITE if name == given or name.startswith(f"{given}_")}
        if not found:
            raise SessError(f"unknown metric {given!r}: choose of {', '.join(SUITE)}")
        if not found & able.keys():
            raise SessError(f"metric {given} needs --annotations")
        wanted |= found & able.keys()
    wanted = wanted or set(able)
    for name in list(wanted):
        wanted |= set(SUITE[name].derive or ())
    return [name for name in SUITE if name in wanted]
