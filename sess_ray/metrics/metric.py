"""What all metrics share: values come one at a time, parts are merged, means have intervals.

Intervals are those of a Poisson bootstrap over images, and sums are exact: `sess_ray.metrics.bootstrap`. So runs that
are the same have a difference of 0, and not of some rounding that leaves 0 out of its interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from sess_ray.metrics.bootstrap import REPLICATES, exact, weights_of

CONFIDENCE = 0.95
# Of the replicates, the share that draws no image at all is 1/e for one image, and 1/e^2 for two.
ONE_IMAGE = 0.25


@dataclass(frozen=True)
class Summary:
    """A metric over a dataset.

    Attributes
    ----------
    n : int
        Number of maps.
    mean, low, high : float
        The metric, and its 95 % confidence interval; NaN if there are no maps. If all maps are of one image there is
        no interval, because nothing says how images differ: low and high are NaN.
    """

    n: int
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, n: int, replicates: np.ndarray) -> Summary:
        """Summarise replicates; the first one counts each image once."""
        rest = replicates[1:]
        if np.isnan(rest).mean() > ONE_IMAGE:
            return cls(n, float(replicates[0]), float("nan"), float("nan"))
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.nanpercentile(rest, [tail, 100 - tail])
        return cls(n, float(replicates[0]), float(low), float(high))


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
        coarse, rest = exact(np.asarray(value, np.float64))
        [weights] = weights_of([key]).astype(np.float64)
        group = label if self.per_class else ""
        _added(self._counts, group, weights)
        _added(self._sums, group, np.multiply.outer(weights, coarse))
        if rest.any():
            _added(self._rests, group, np.multiply.outer(weights, rest))

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
        """Return the mean value in each replicate, (1 + replicates, ...): of maps, or of their classes."""
        groups = list(self._sums)
        sums = np.stack([self._sums[group] for group in groups])
        rests = np.stack([self._rests.get(group, np.zeros_like(self._sums[group])) for group in groups])
        counts = np.stack([self._counts[group] for group in groups])
        return ratio(*self.totals(sums, rests, counts))

    @classmethod
    def totals(cls, sums: np.ndarray, rests: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of which the mean is the `ratio`: exact in whatever order, and parts are added up.

        A mean over classes weights each map by one over the number of maps of its class. These weights are the same in
        all replicates; otherwise a class with a single map would count as certain.

        Parameters
        ----------
        sums, rests : ndarray, (classes, 1 + replicates, ...)
            Sums of values, in the two parts that `exact` makes; the first replicate counts each map once.
        counts : ndarray, (classes, 1 + replicates)
            How many maps that are, one at least.

        Returns
        -------
        ndarray, (2, 1 + replicates, ...), and ndarray, (2, 1 + replicates)
        """
        if not cls.per_class:
            return np.stack([sums.sum(0), rests.sum(0)]), np.stack([counts.sum(0), np.zeros_like(counts[0])])
        size = counts[:, :1]
        means = (sums + rests) / size.reshape(-1, *(1,) * (sums.ndim - 1))
        total, weight = (np.stack([part.sum(0) for part in exact(values)]) for values in (means, counts / size))
        return total, weight

    @property
    def n(self) -> int:
        """Number of maps."""
        return int(sum(counts[0] for counts in self._counts.values()))

    @property
    def numbers(self) -> int:
        """How many numbers the value of a map has."""
        return 1

    def summary(self) -> Summary:
        """Return the mean and its interval."""
        return Summary.of(self.n, self.replicates())

    def difference(self, base: Self) -> Summary:
        """Return this metric minus that of another run on the same images, with a paired interval."""
        if self.n != base.n:
            raise ValueError(f"runs of {self.n} and {base.n} maps are not paired: count the maps that both have")
        return Summary.of(self.n, self.replicates() - base.replicates())


def ratio(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the mean in each replicate, (1 + replicates, ...), of sums in two parts; NaN where nothing was drawn."""
    # In this order in memory: in another one `reduce` may round otherwise.
    whole, drawn = np.ascontiguousarray(total.sum(0)), weight.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = whole / drawn.reshape(-1, *(1,) * (whole.ndim - 1))
    return found


def _added(sums: dict[str, np.ndarray], group: str, more: np.ndarray) -> None:
    """Add to the sums of a group, which has none yet if it is new."""
    if group in sums:
        sums[group] += more
    else:
        sums[group] = more.copy()
