"""From the rows of results/ to sums, and from sums to summaries: over all maps of a run, by size and by class.

Nothing of all maps is held but which metrics each has, in 4 bytes. What grows is what sums of classes take: of curves,
a thousand classes have gigabytes. So only as many classes are summed up at once as `CLASS_BYTES` allow; for the others
the rows are read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.metrics.metric import COARSE, REPLICATES, Metric, Summary, weights_of
from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.evaluate.results import Chunks

CLASS_BYTES = 2**29  # of sums of classes at a time
Sums = dict[str, dict[str, Metric]]  # by metric, and by group


@dataclass(frozen=True)
class Counted:
    """What is known of a run's maps together.

    Attributes
    ----------
    whole : dict of str to Metric
        Each metric over all maps that have it.
    sizes, classes : dict of str to dict of str to Summary
        Each metric by size and by class of target.
    known : ndarray, (rows,) uint32
        A bit for each metric that a row of results/ has.
    """

    whole: dict[str, Metric]
    sizes: dict[str, dict[str, Summary]]
    classes: dict[str, dict[str, Summary]]
    known: np.ndarray


class Rows:
    """Some rows of results/, ready to be counted.

    Parameters
    ----------
    table : pa.Table
        image_id, label, and the metrics.
    metrics : sequence of str
    """

    def __init__(self, table: pa.Table, metrics: Sequence[str]) -> None:
        self.labels = np.array(table["label"].to_pylist(), object)
        self._valid = {name: table[name].is_valid().to_numpy() for name in metrics}
        self._values = {name: _values(table[name], self._valid[name]) for name in metrics}
        self._weights = weights_of(table["image_id"].to_pylist())

    def known(self) -> np.ndarray:
        """Return a bit for each metric of each row, (rows,) uint32."""
        bits = np.zeros(len(self.labels), np.uint32)
        for bit, valid in enumerate(self._valid.values()):
            bits |= valid.astype(np.uint32) << np.uint32(bit)
        return bits

    def count(self, sums: Sums, groups: Mapping[str, np.ndarray]) -> None:
        """Count rows, given by their places in groups; groups come in the order of their first values."""
        for name, valid in self._valid.items():
            chosen = {group: places[valid[places]] for group, places in groups.items()}
            for group, places in sorted(chosen.items(), key=lambda one: one[1][0] if len(one[1]) else 0):
                if len(places):
                    self.add(sums.setdefault(name, {}).setdefault(group, SUITE[name].make()), name, places)

    def add(self, metric: Metric, name: str, places: np.ndarray) -> None:
        """Count some rows that have a metric."""
        metric.count(self._values[name][places], self._weights[places], self.labels[places])

    def class_bytes(self) -> int:
        """Return what the sums of a class take."""
        found = 0
        for values in self._values.values():
            parts = 2 if ((values * COARSE) % 1).any() else 1
            found += 8 * (1 + REPLICATES) * (parts * (values.shape[1] if values.ndim > 1 else 1) + 1)
        return found


def _values(column: pa.ChunkedArray, valid: np.ndarray) -> np.ndarray:
    """Return a column, (n,) or (n, ...) float64; what is null is 0."""
    there = column.drop_null().combine_chunks()
    if not pa.types.is_list(column.type):
        found = there.to_numpy(zero_copy_only=False)
    else:
        found = there.flatten().to_numpy(zero_copy_only=False).reshape(len(there), -1 if len(there) else 0)
    if len(found) == len(valid):
        return found
    whole = np.zeros((len(valid), *found.shape[1:]))
    whole[valid] = found
    return whole


def counted(chunks: Chunks, metrics: Sequence[str]) -> Counted:
    """Count all rows of a run.

    Parameters
    ----------
    chunks : callable
        Reads its results.
    metrics : sequence of str
        Columns, of the suite.
    """
    by_size: Sums = {}
    by_class: Sums = {}
    known = [np.empty(0, np.uint32)]
    taken: set[str] = set()
    left: dict[str, None] = {}
    room = 0
    for table in chunks(["image_id", "label", "size", *metrics]):
        rows = Rows(table, metrics)
        known.append(rows.known())
        rows.count(by_size, _places(table["size"].fill_null(_NONE).to_pylist()))
        room = room or max(1, CLASS_BYTES // rows.class_bytes())
        groups = _places(rows.labels)
        taken.update([label for label in groups if label not in left][: room - len(taken)])
        left.update((label, None) for label in groups if label not in taken)
        rows.count(by_class, {label: places for label, places in groups.items() if label in taken})
    classes = _summaries(by_class, metrics)
    for first in range(0, len(left), room or 1):
        more = _of_classes(chunks, metrics, list(left)[first : first + room])
        for name, found in _summaries(more, metrics).items():
            classes[name] |= found
    whole = {name: SUITE[name].make() for name in metrics}
    for name, sums in by_size.items():
        for own in sums.values():
            whole[name].merge(own)
        sums.pop(_NONE, None)
    return Counted(whole, _summaries(by_size, metrics), classes, np.concatenate(known))


_NONE = ""  # the size of what is not annotated


def _of_classes(chunks: Chunks, metrics: Sequence[str], labels: list[str]) -> Sums:
    """Count the rows of some classes alone."""
    found: Sums = {}
    for table in chunks(["image_id", "label", *metrics]):
        own = table.filter(pc.is_in(table["label"], pa.array(labels, pa.string())))
        if own.num_rows:
            rows = Rows(own, metrics)
            rows.count(found, _places(rows.labels))
    return found


def _places(values: Iterable[str | None]) -> dict[str, np.ndarray]:
    """Return where each value is; nothing of None."""
    found: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        if value is not None:
            found.setdefault(value, []).append(place)
    return {value: np.array(places) for value, places in found.items()}


def _summaries(sums: Sums, metrics: Sequence[str]) -> dict[str, dict[str, Summary]]:
    return {name: {group: own.summary() for group, own in sums.get(name, {}).items()} for name in metrics}
