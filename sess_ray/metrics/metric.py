"""What all metrics share: values come one at a time, parts are merged, means have intervals.

Intervals come from a Poisson bootstrap: in each of a thousand replicates an image counts a Poisson number of times that
depends only on its name. So only sums are held, all maps of an image are drawn together, and two runs see the same
replicates: the interval of their difference is paired.

Sums are exact, in whatever order and in whatever parts values come, for up to a hundred million maps: then runs that
are the same have a difference of 0, and not of some rounding that leaves 0 out of its interval. For that values are
taken to the nearest multiple of 2^-52, and added up in two parts, of which no sum needs more bits than a float64 has:
multiples of 2^-26, and the rest. Counts of pixels are whole numbers, whose sums are exact as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np

REPLICATES = 1000
CONFIDENCE = 0.95
COARSE, FINE = 2.0**26, 2.0**52  # parts of 1 that values are made of
ROWS = 1024  # that are added up at once: their weights, as float64, are 8 MB


@dataclass(frozen=True)
class Summary:
    """A metric over a dataset.

    Attributes
    ----------
    n : int
        Number of maps.
    mean, low, high : float
        The metric, and its 95 % confidence interval; NaN if there are no maps.
    """

    n: int
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, n: int, replicates: np.ndarray) -> Summary:
        """Summarise replicates; the first one counts each image once."""
        rest = replicates[1:]
        if not np.isfinite(rest).any():
            return cls(n, float(replicates[0]), float("nan"), float("nan"))
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.nanpercentile(rest, [tail, 100 - tail])
        return cls(n, float(replicates[0]), float(low), float(high))


@lru_cache(maxsize=1024)
def replicate_weights(key: str) -> np.ndarray:
    """Return how often an image counts in each replicate: once in the first, then Poisson numbers from its name."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    drawn = np.random.default_rng(seed).poisson(1.0, REPLICATES)
    return np.concatenate([[1.0], drawn])


def weights_of(keys: Sequence[str]) -> np.ndarray:
    """Return `replicate_weights` of each of some images, (n, 1 + replicates) uint8: a Poisson number of 1 is small.

    >>> weights_of(["a.jpg", "b.jpg", "a.jpg"])[:, :5].tolist()
    [[1, 0, 1, 1, 2], [1, 1, 1, 2, 1], [1, 0, 1, 1, 2]]
    """
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    distinct = np.empty((len(places), 1 + REPLICATES), np.uint8)
    for place, key in enumerate(places):
        distinct[place] = replicate_weights(key)
    return distinct if len(places) == len(keys) else distinct[[places[key] for key in keys]]


class Metric:
    """A mean over maps.

    Subclasses return in `measure` the value of one map: a number, or an array of numbers (for example one for each
    threshold), whose means `reduce` turns into one number.

    Examples
    --------
    >>> class Share(Metric):
    ...     def measure(self, hits, shots):
    ...         return hits / shots
    >>> metric = Share()
    >>> metric.update(1, 2, key="a.jpg"), metric.update(1, 4, key="b.jpg")
    (0.5, 0.25)
    >>> metric.summary().mean
    0.375
    """

    name: ClassVar[str] = ""
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    per_class: ClassVar[bool] = False  # the mean over classes of their means
    curve: ClassVar[bool] = False  # a map's value is an array

    def __init__(self) -> None:
        self._sums: dict[str, np.ndarray] = {}  # of multiples of 1 / COARSE
        self._rests: dict[str, np.ndarray] = {}  # of what is finer, where anything is
        self._counts: dict[str, np.ndarray] = {}

    def measure(self, *args, **kwargs) -> float | np.ndarray:  # type: ignore[no-untyped-def] # noqa: ANN002, ANN003
        """Return the value of one map."""
        raise NotImplementedError

    def reduce(self, means: np.ndarray) -> np.ndarray:
        """Return one number for each replicate, from means (replicates, ...) over maps."""
        return means

    def update(self, *args, key: str, label: str = "", **kwargs) -> float | np.ndarray:  # type: ignore[no-untyped-def] # noqa: ANN002, ANN003
        """Measure one map and count it.

        Parameters
        ----------
        *args, **kwargs
            What `measure` takes.
        key : str
            Name of the image; all its maps are drawn together for the intervals.
        label : str
            Class of the map, for means over classes.

        Returns
        -------
        float or ndarray
            The map's own value.
        """
        value = self.measure(*args, **kwargs)
        self.add(value, key=key, label=label)
        return value

    def add(self, value: float | np.ndarray, *, key: str, label: str = "") -> None:
        """Count a value that was measured before."""
        self.count(np.asarray(value, np.float64)[None], weights_of([key]), [label])

    def count(self, values: np.ndarray, weights: np.ndarray, labels: Sequence[str | None]) -> None:
        """Count many values that were measured before.

        Parameters
        ----------
        values : ndarray, (n, ...)
            One value for each map.
        weights : ndarray, (n, 1 + replicates)
            `weights_of` their images.
        labels : sequence of str or None
            Class of each map, for means over classes.
        """
        places: dict[str, list[int]] = {}
        for place, label in enumerate(labels):
            places.setdefault((self.per_class and label) or "", []).append(place)
        for group, own in places.items():
            for first in range(0, len(own), ROWS):
                some = own[first : first + ROWS]
                self._count(group, values[some].astype(np.float64), weights[some].astype(np.float64))

    def _count(self, group: str, values: np.ndarray, weights: np.ndarray) -> None:
        shape = values.shape[1:]
        flat = values.reshape(len(values), -1)
        coarse = np.rint(flat * COARSE) / COARSE
        rest = np.rint((flat - coarse) * FINE) / FINE
        _added(self._counts, group, weights.sum(0))
        _added(self._sums, group, (weights.T @ coarse).reshape(-1, *shape))
        if rest.any():
            _added(self._rests, group, (weights.T @ rest).reshape(-1, *shape))

    def merge(self, other: Self) -> Self:
        """Add everything that another part has counted; return self."""
        for own, theirs in (
            (self._sums, other._sums),
            (self._rests, other._rests),
            (self._counts, other._counts),
        ):
            for group, sums in theirs.items():
                _added(own, group, sums)
        return self

    def replicates(self) -> np.ndarray:
        """Return the metric in each replicate, (1 + replicates,); the first one is that of the maps themselves."""
        return self.reduce(self.means()) if self._sums else np.full(1 + REPLICATES, np.nan)

    def means(self) -> np.ndarray:
        """Return the mean value in each replicate, (1 + replicates, ...).

        A mean over classes weights each map by one over the number of maps of its class. These weights are the same in
        all replicates; otherwise a class with a single map would count as certain.
        """
        total: Any = 0.0
        weight: Any = 0.0
        for group in sorted(self._sums):  # that the order in which classes came makes no difference either
            sums = self._sums[group] + self._rests.get(group, 0.0)
            counts = self._counts[group].reshape(-1, *(1,) * (sums.ndim - 1))
            total = total + sums / counts[0]
            weight = weight + counts / counts[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / weight)

    @property
    def n(self) -> int:
        """Number of maps."""
        return int(sum(counts[0] for counts in self._counts.values()))

    def summary(self) -> Summary:
        """Return the mean and its interval."""
        return Summary.of(self.n, self.replicates())

    def difference(self, base: Self) -> Summary:
        """Return this metric minus that of another run on the same images, with a paired interval."""
        if self.n != base.n:
            raise ValueError(f"runs of {self.n} and {base.n} maps are not paired: count the maps that both have")
        return Summary.of(self.n, self.replicates() - base.replicates())


def _added(sums: dict[str, np.ndarray], group: str, more: np.ndarray) -> None:
    """Add to the sums of a group, which has none yet if it is new."""
    if group in sums:
        sums[group] += more
    else:
        sums[group] = more.copy()
