"""The stage on GPU actors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
import torch

from sess_ray.access import one_line
from sess_ray.engine.explanation import Explanation
from sess_ray.engine.sess import SESS
from sess_ray.engine.targets import TargetSpec
from sess_ray.errors import SessError
from sess_ray.pipeline.cluster.isolation import survived
from sess_ray.pipeline.cluster.rows import Row, cells, tables
from sess_ray.pipeline.explain import metering
from sess_ray.pipeline.explain.stages import EXPLAINED, died, failed, succeeded, targets_of

if TYPE_CHECKING:
    from sess_ray.pipeline.explain.targets import Declared


class ExplainActor:
    """Holds the model and explains blocks of images.

    Parameters
    ----------
    model : ray.ObjectRef
        A `Model`, which the driver keeps for actors that are started again.
    options : dict
        Keyword arguments of `SESS`.
    declared : Declared, optional
        What the words of a large manifest mean.
    """

    def __init__(self, model: ray.ObjectRef, options: dict[str, Any], declared: Declared | None = None) -> None:
        self._another = partial(ExplainActor, model, options, declared)
        self._targets = declared.of if declared else targets_of
        self._sess = SESS(ray.get(model), **options)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        lost = partial(died, schema=EXPLAINED, stage="explain")
        yield from survived(table, lambda block: tables(self._explained(block), EXPLAINED), self._another, lost)

    def _explained(self, table: pa.Table) -> Iterator[Row]:
        pixels = cells(table["pixels"])
        rows = table.drop_columns(["pixels"]).to_pylist()
        todo: list[int] = []
        for index, row in enumerate(rows):
            stage = "plan"
            try:
                if row["error"] is None:
                    self._sess.plan(row["rows"], row["columns"])
                    stage = "targets"
                    row["targets"] = self._targets(row, self._sess.model)
                    todo.append(index)
                    continue
            except SessError as error:
                row |= {"stage": stage, "error": str(error)}
            yield failed(row)

        def image(index: int) -> tuple[np.ndarray, TargetSpec]:
            row = rows[index]
            array = pixels[index]
            assert array is not None
            return array.reshape(row["rows"], row["columns"], 3), row["targets"]

        done, begin = 0, perf_counter()
        try:
            for position, explanations in self._sess.stream(image(index) for index in todo):
                yield _metered(rows[todo[position]], explanations, perf_counter() - begin)
                done, begin = position + 1, perf_counter()
            return
        except Exception:  # noqa: S110 - one of the images in flight; which, shows when each runs alone
            pass
        # Outside of the clause: what the failed batch held is free.
        for index in todo[done:]:
            begin = perf_counter()
            try:
                yield _metered(rows[index], self._alone(*image(index)), perf_counter() - begin)
            except Exception as error:
                yield failed({**rows[index], "stage": "explain", "error": one_line(error)})

    def _alone(self, pixels: np.ndarray, targets: TargetSpec) -> list[Explanation]:
        """Explain one image; in smaller and smaller batches while memory ends."""
        sess = self._sess
        while True:
            try:
                [(_, explanations)] = sess.stream([(pixels, targets)])
                return explanations
            except torch.OutOfMemoryError:
                if sess.batch_size == 1:
                    raise
            sess = sess.with_batch_size(sess.batch_size // 2)
            if sess.device.type == "cuda":
                torch.cuda.empty_cache()


def _metered(row: Row, explanations: list[Explanation], seconds: float) -> Row:
    metering.add("sess_stage_seconds", seconds, stage="explain")
    if not explanations:
        return failed({**row, "stage": "targets", "error": f"no class has {row['targets']}"})
    return succeeded(row, explanations, seconds)
