"""Sums over rows of results/ in each replicate, by size and by class of the target; of parts they are merged.

They are exact (`sess_ray.metrics.bootstrap`): whoever has counted which rows, and in what order, they are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.metrics.bootstrap import REPLICATES, exact, weights_of
from sess_ray.metrics.metric import Metric, Summary, ratio
from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.evaluate.results import SIZES

FEW = 16  # rows of a class and size
KINDS = (("both",), ("class",), ("size",))
ROWS = 256  # whose weights are there at once: as float64 2 MB, which a core's cache holds
# Parts of what is summed up: values as `exact` cuts them, and how many there are.
COARSE, REST, COUNT = "coarse", "rest", "count"
NO_LABEL = ""


@dataclass(frozen=True)
class Grouping:
    """What is summed up.

    Attributes
    ----------
    metrics : sequence of str
        Columns, of the suite.
    classes : sequence of str, or None
        Labels whose rows count, `NO_LABEL` for those without; None where classes make no difference.
    whole : bool
        Over all rows alone, neither by size nor by class.
    """

    metrics: Sequence[str]
    classes: Sequence[str] | None
    whole: bool = False

    @cached_property
    def makes(self) -> dict[str, Metric]:
        """The metrics, to which no value is added."""
        return {name: SUITE[name].make() for name in self.metrics}

    @property
    def sizes(self) -> int:
        """Number of groups by size: the last one is of what has none."""
        return 1 if self.whole else 1 + len(SIZES)

    def groups(self, name: str) -> dict[str, int]:
        """Return how many groups a metric has of each kind: for a mean over classes, each size of a class is one."""
        classes = 1 if self.classes is None else len(self.classes)
        if self.makes[name].per_class:
            return {"both": classes * self.sizes}
        return {"size": self.sizes} if self.whole else {"size": self.sizes, "class": classes}

    def columns(self) -> list[str]:
        """Return the columns of results/ that are needed."""
        return ["image_id", "label", "size", *self.metrics]

    def own(self, table: pa.Table) -> pa.Table:
        """Return the rows of its classes."""
        if self.classes is None:
            return table
        return table.filter(pc.is_in(table["label"].fill_null(NO_LABEL), pa.array(self.classes, pa.string())))

    def places(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Return class and size of rows as numbers, (n,) int64 each."""
        none = np.zeros(len(table), np.int64)
        size = none if self.whole else _codes(table["size"], list(SIZES))
        return none if self.classes is None else _codes(table["label"].fill_null(NO_LABEL), self.classes), size


def _codes(column: pa.ChunkedArray, known: Sequence[str]) -> np.ndarray:
    found: np.ndarray = pc.index_in(column, pa.array(known, pa.string())).fill_null(len(known)).to_numpy()
    return found.astype(np.int64)


class Block(NamedTuple):
    """Columns of a matrix that are a part of a metric."""

    name: str
    part: str
    values: np.ndarray  # (n, columns)


@dataclass
class Sums:
    """What is summed up so far.

    Attributes
    ----------
    grouping : Grouping
    arrays : dict
        By metric, kind of group and part: (groups, numbers of a value, 1 + replicates) float64.
    """

    grouping: Grouping
    arrays: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Count rows, of the grouping's classes alone.

        Parameters
        ----------
        table : pa.Table
            Its columns, and perhaps ``counts``: a bit for each metric for which the row counts.
        """
        blocks = list(self._blocks(table))
        label, size = self.grouping.places(table)
        both = label * self.grouping.sizes + size
        order = np.argsort(both, kind="stable")
        places = {"both": both[order], "class": label[order], "size": size[order]}
        # Sums of rows of one class and size are added to those of the class, and of the size. Where that is a row or
        # two, the products take less than to add them up, and each kind is multiplied by itself.
        few = len(both) < FEW * len(np.unique(both))
        products = [self._product(blocks, kinds, order) for kinds in (KINDS if few else [sum(KINDS, ())])]
        ids = table["image_id"].take(order).to_pylist()
        for first in range(0, len(ids), ROWS):
            weights = weights_of(ids[first : first + ROWS]).astype(np.float64)
            own = {kind: codes[first : first + ROWS] for kind, codes in places.items()}
            for kinds, matrix, targets in products:
                for rows, start in _alike(own[kinds[0]]):
                    found = matrix[first : first + ROWS][rows].T @ weights[rows]
                    for kind, array, columns in targets:
                        array[own[kind][start]] += found[columns]

    def _blocks(self, table: pa.Table) -> Iterator[Block]:
        for bit, name in enumerate(self.grouping.metrics):
            valid = table[name].is_valid().to_numpy()
            values = _values(table[name], valid)
            if "counts" in table.column_names:
                valid = valid & (table["counts"].to_numpy() >> np.uint32(bit) & 1).astype(bool)
                values[~valid] = 0
            if valid.any():
                coarse, rest = exact(values)
                yield Block(name, COARSE, coarse)
                if rest.any():
                    yield Block(name, REST, rest)
                yield Block(name, COUNT, valid[:, None])

    def _product(
        self, blocks: Sequence[Block], kinds: tuple[str, ...], order: np.ndarray
    ) -> tuple[tuple[str, ...], np.ndarray, list[tuple[str, np.ndarray, slice]]]:
        """Return, for some kinds of groups, a matrix of blocks in order, and the sums to which its columns belong."""
        values = [np.empty((len(order), 0))]
        targets = []
        first = 0
        for block in blocks:
            groups = {kind: count for kind, count in self.grouping.groups(block.name).items() if kind in kinds}
            if not groups:
                continue
            values.append(block.values)
            columns = slice(first, first + block.values.shape[1])
            first = columns.stop
            for kind, count in groups.items():
                place = block.name, kind, block.part
                if place not in self.arrays:
                    self.arrays[place] = np.zeros((count, block.values.shape[1], 1 + REPLICATES))
                targets.append((kind, self.arrays[place], columns))
        return kinds, np.concatenate(values, 1)[order], targets

    def merge(self, other: Self) -> Self:
        """Add what another part has summed up; return self."""
        for place, array in other.arrays.items():
            if place in self.arrays:
                self.arrays[place] += array
            else:
                self.arrays[place] = array if array.flags.writeable else array.copy()  # what Ray gives is not
        return self

    def totals(self, name: str, kind: str, groups: np.ndarray) -> Totals | None:
        """Return the totals of a metric over some groups; None where nothing was counted there.

        Parameters
        ----------
        name, kind : str
        groups : ndarray, (classes, parts) int64
            Those of a class are one.
        """
        count = self.arrays.get((name, kind, COUNT))
        if count is None:
            return None
        counts = count[groups, 0].sum(1)
        there = counts[:, 0] > 0
        if not there.any():
            return None
        metric = self.grouping.makes[name]
        coarse = self._picked(name, kind, COARSE, groups[there])
        rest = self._picked(name, kind, REST, groups[there]) if (name, kind, REST) in self.arrays else coarse * 0
        total, weight = metric.totals(coarse, rest, counts[there])
        return Totals(int(counts[:, 0].sum()), total, weight)

    def summary(self, name: str, kind: str, groups: np.ndarray) -> Summary | None:
        """Return the mean over some groups, which are parts of one class, and its interval; None as for `totals`."""
        metric = self.grouping.makes[name]
        if metric.per_class or (name, kind, COUNT) not in self.arrays:
            totals = self.totals(name, kind, groups[None])
            return totals.summary(metric) if totals else None
        # What `totals` comes to, without the copies that it makes: of curves they take longer than all else.
        [group] = groups
        count = self.arrays[name, kind, COUNT][group, 0]
        if not count[0]:
            return None
        sums = self.arrays[name, kind, COARSE][group]
        if (name, kind, REST) in self.arrays:
            sums = sums + self.arrays[name, kind, REST][group]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.ascontiguousarray((sums / count).T)
        return Summary.of(int(count[0]), metric.reduce(means if metric.curve else means[:, 0]))

    def _picked(self, name: str, kind: str, part: str, groups: np.ndarray) -> np.ndarray:
        """Return sums as metrics take them, (classes, 1 + replicates, ...)."""
        found: np.ndarray = self.arrays[name, kind, part][groups].sum(1).swapaxes(1, 2)
        return found if self.grouping.makes[name].curve else found[..., 0]


@dataclass(frozen=True)
class Totals:
    """A metric over some maps, as what is added up: `Metric.totals`.

    Attributes
    ----------
    n : int
        Number of maps.
    total, weight : ndarray
    """

    n: int
    total: np.ndarray
    weight: np.ndarray

    def replicates(self, metric: Metric) -> np.ndarray:
        """Return the metric in each replicate, (1 + replicates,)."""
        return metric.reduce(ratio(self.total, self.weight))

    def summary(self, metric: Metric) -> Summary:
        """Return its mean and its interval."""
        return Summary.of(self.n, self.replicates(metric))


def _alike(codes: np.ndarray) -> Iterator[tuple[slice | np.ndarray, int]]:
    """Yield which rows have the same code, and the first of them."""
    if (np.diff(codes) >= 0).all():
        starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        yield from ((slice(start, end), start) for start, end in pairwise(starts))
    else:
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            yield rows, int(rows[0])


def plus(parts: Iterable[Totals | None]) -> Totals | None:
    """Return the totals over all maps of several parts; of a mean over classes, those of other classes each."""
    found = [part for part in parts if part]
    if not found:
        return None
    total, weight = found[0].total.copy(), found[0].weight.copy()
    for part in found[1:]:
        total += part.total
        weight += part.weight
    return Totals(sum(part.n for part in found), total, weight)


def _values(column: pa.ChunkedArray, valid: np.ndarray) -> np.ndarray:
    """Return a column, (n, numbers) float64, that may be written to; what is null is 0."""
    there = column.drop_null().combine_chunks()
    flat = there.flatten() if pa.types.is_list(column.type) else there
    found = flat.to_numpy(zero_copy_only=False).reshape(len(there), -1 if len(there) else 1)
    whole = np.zeros((len(valid), found.shape[1]))
    whole[valid] = found
    return whole
