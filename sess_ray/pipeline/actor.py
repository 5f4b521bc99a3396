"""The stage on GPU actors."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from sess_ray.errors import SessError
from sess_ray.explainer import SESS, Explanation
from sess_ray.io.store import quantize
from sess_ray.pipeline.stages import EXPLAINED, describe


class ExplainActor:
    """Holds the model and explains blocks of images.

    Parameters
    ----------
    model : ray.ObjectRef
        Of a `Model`, which the driver keeps for actors that are started again.
    options : dict
        Of `SESS`.
    """

    def __init__(self, model: ray.ObjectRef, options: dict[str, Any]) -> None:
        self._sess = SESS(ray.get(model), **options)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        pixels = table["pixels"]
        rows = table.drop_columns(["pixels"]).to_pylist()
        todo: list[int] = []
        for index, row in enumerate(rows):
            try:
                if row["error"] is None:
                    self._sess.plan(row["height"], row["width"])
                    todo.append(index)
                    continue
            except SessError as error:
                row |= {"stage": "plan", "error": str(error)}
            yield _failed(row)

        def image(index: int) -> tuple[np.ndarray, str | list[list[int]]]:
            row = rows[index]
            array = np.frombuffer(pixels[index].as_buffer(), np.uint8).reshape(row["height"], row["width"], 3)
            return array, row["top"] or row["targets"]

        done, begin = 0, perf_counter()
        try:
            for position, explanations in self._sess.stream(image(index) for index in todo):
                yield _succeeded(rows[todo[position]], explanations, perf_counter() - begin)
                done, begin = position + 1, perf_counter()
        except Exception:  # one of the images in flight; which, shows when each runs alone
            for index in todo[done:]:
                begin = perf_counter()
                try:
                    [(_, explanations)] = self._sess.stream([image(index)])
                    yield _succeeded(rows[index], explanations, perf_counter() - begin)
                except Exception as error:
                    yield _failed({**rows[index], "stage": "explain", "error": describe(error)})


def _failed(row: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in ("image_id", "uri", "stage", "error")}], EXPLAINED)


def _succeeded(row: dict[str, Any], explanations: list[Explanation], seconds: float) -> pa.Table:
    distinct = {explanation.target: explanation for explanation in explanations}  # alternatives may meet in one class
    return pa.Table.from_pylist(
        [
            {
                "image_id": row["image_id"],
                "uri": row["uri"],
                "target": explanation.target,
                "target_name": explanation.target_name,
                "score": explanation.score,
                "predicted": explanation.predicted,
                "predicted_score": explanation.predicted_score,
                "height": row["height"],
                "width": row["width"],
                "peak_x": explanation.peak[0],
                "peak_y": explanation.peak[1],
                "num_patches": explanation.num_patches,
                "num_kept": explanation.num_kept,
                "seconds": seconds / len(distinct),
                "levels": quantize(explanation.saliency).tobytes(),
            }
            for explanation in distinct.values()
        ],
        EXPLAINED,
    )
