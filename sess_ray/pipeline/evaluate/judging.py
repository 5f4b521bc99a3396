"""The stages of an evaluation, and what moves between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sess_ray.access import Access, one_line, use
from sess_ray.engine.settings import default_batch_size
from sess_ray.errors import SessError
from sess_ray.io.annotations import Annotations, Kind
from sess_ray.io.decode import decode
from sess_ray.io.maps import decode_map
from sess_ray.io.moved import Moved
from sess_ray.io.reading import read_items
from sess_ray.io.store import MAPS, Store
from sess_ray.metrics.localization import peak_of
from sess_ray.metrics.perturbation import ModelMetric, Series, at_input_size, scored
from sess_ray.metrics.suite import SUITE
from sess_ray.models import Model
from sess_ray.pipeline.cluster.isolation import REASON, survived
from sess_ray.pipeline.cluster.rows import Row, cells, fetched, flat, tables
from sess_ray.pipeline.evaluate.facts import Unmeasured, facts_of, meant
from sess_ray.pipeline.evaluate.parts import PARTS, read_part
from sess_ray.pipeline.evaluate.results import SIZES
from sess_ray.precision import Precision

KEY = [pa.field("run", pa.string()), MAPS.field("image_id"), MAPS.field("target")]
PROBLEM = [("problem", pa.string()), ("detail", pa.string())]
PROBLEMS = pa.schema([*KEY, *PROBLEM])
READ = pa.schema(
    [
        *KEY,
        *(MAPS.field(name) for name in MAPS.names if name not in (*PROBLEMS.names, "uri", "method", "model")),
        ("pixels", pa.large_binary()),
        *PROBLEM,
    ]
)
IMAGES_AT_ONCE = 512  # maps whose images' files are in memory
COPIED = ("target_name", "score", "num_patches", "num_scored", "num_kept")  # from maps/ to results/


def problem(run: str, image_id: str, target: int | None, kind: str, detail: str) -> dict[str, Any]:
    """Return a row of problems/."""
    return {"run": run, "image_id": image_id, "target": target, "problem": kind, "detail": detail}


def results_schema(metrics: Sequence[str]) -> pa.Schema:
    """Return the schema of results/: what is known of a map, and a column for each metric."""
    kinds = [(name, pa.list_(pa.float64()) if SUITE[name].curve else pa.float64()) for name in metrics]
    known = [("label", pa.string()), ("area", pa.float64()), ("size", pa.string())]
    return pa.schema([*KEY, *(MAPS.field(name) for name in COPIED), *known, *kinds])


def read_maps(
    table: pa.Table, access: Access, runs: dict[str, str], *, pixels: bool, max_pixels: int, moved: Any = None
) -> Iterator[pa.Table]:
    """Read some maps, and yield them with their images or with the reason why there is none.

    Parameters
    ----------
    table : pa.Table
        Rows of `PARTS`, of one run.
    access : Access
    runs : dict
        Where the runs are, by name.
    pixels : bool
        Whether the images are needed.
    max_pixels : int
    moved : Moved or ray.ObjectRef, optional
        Where the images are now.
    """

    def reading(block: pa.Table) -> Iterator[pa.Table]:
        use(access)
        yield from tables(_read(block.to_pylist(), runs, moved, pixels=pixels, max_pixels=max_pixels), READ)

    def lost(row: pa.Table) -> pa.Table:
        use(access)
        [found] = _read(row.to_pylist(), runs, moved, pixels=False, max_pixels=max_pixels)
        return pa.Table.from_pylist([{**found, "problem": "no image", "detail": REASON}], READ)

    yield from survived(table, reading, lambda: reading, lost, _one_by_one)


def _one_by_one(table: pa.Table) -> Iterator[pa.Table]:
    """Cut parts into parts of a row."""
    for part in table.to_pylist():
        for number in range(part["first"], part["first"] + part["rows"]):
            yield pa.Table.from_pylist([{**part, "first": number, "rows": 1}], PARTS)


def _read(parts: list[Row], runs: dict[str, str], moved: Any, *, pixels: bool, max_pixels: int) -> Iterator[Row]:
    known: Moved | None = None if moved is None else fetched(moved)
    for part in parts:
        for table in read_part(part, Store(runs[part["run"]]), known):
            for first in range(0, len(table), IMAGES_AT_ONCE):
                stored = table.slice(first, IMAGES_AT_ONCE).drop_columns(["number"]).to_pylist()
                yield from _with_images(stored, part["run"], pixels=pixels, max_pixels=max_pixels)


def _with_images(stored: list[Row], run: str, *, pixels: bool, max_pixels: int) -> Iterator[Row]:
    places = list(dict.fromkeys(row["uri"] for row in stored)) if pixels else []
    contents = dict(zip(places, read_items(places), strict=True))
    for row in stored:
        result = {**row, "run": run, "pixels": None, "problem": None, "detail": None}
        content = contents.get(row["uri"])
        if isinstance(content, Exception):
            result |= {"problem": "no image", "detail": one_line(content)}
        elif content is not None:
            result |= _pixels(content, (row["height"], row["width"]), max_pixels)
        yield result


def _pixels(content: bytes, size: tuple[int, int], max_pixels: int) -> dict[str, Any]:
    try:
        pixels = decode(content, max_pixels)
    except Exception as error:
        return {"problem": "no image", "detail": one_line(error)}
    if pixels.shape[:2] != size:
        found = " x ".join(map(str, pixels.shape[1::-1]))
        return {"problem": "another image", "detail": f"the image is {found}, its map {size[1]} x {size[0]}"}
    return {"pixels": flat(pixels)}


class EvaluateActor:
    """Holds the model and the annotations, and measures blocks of maps.

    Parameters
    ----------
    model : ray.ObjectRef or None
        A `Model`; None where no metric asks it.
    known : ray.ObjectRef or None
        A pair of `Annotations` and label to classes.
    metrics : sequence of str
        Names of the suite.
    region_kind : {"segments", "boxes"}
    precision : {"fp32", "tf32", "bf16"}
    batch_size : int or None
    smooth : mapping of str to float, optional
        For each run, by how much its maps are blurred for the pointing game (`peak_of`).
    device : str or torch.device, optional
        By default ``cuda`` where there is one.
    """

    def __init__(
        self,
        model: Any,
        known: Any,
        metrics: Sequence[str],
        region_kind: Kind,
        precision: Precision,
        batch_size: int | None,
        smooth: Mapping[str, float] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        import ray

        self._another = partial(
            EvaluateActor, model, known, metrics, region_kind, precision, batch_size, smooth, device
        )
        self._smooth = smooth or {}
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model: Model | None = ray.get(model).prepared(where, precision) if model else None
        self._batch_size = batch_size or (default_batch_size(where, self._model.input_size) if self._model else 1)
        self._annotations: Annotations | None
        self._annotations, self._classes = ray.get(known) if known else (None, {})
        self._kind = region_kind
        self._metrics = {name: SUITE[name].make() for name in metrics}
        self._questions: dict[str, ModelMetric] = {}
        for metric in self._metrics.values():
            if isinstance(metric, ModelMetric):
                self._questions.setdefault(metric.question, metric)
        self._schema = pa.schema([*results_schema(metrics), *PROBLEM, ("forwards", pa.int64())])

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        yield from survived(table, lambda block: [self._measured(block)], self._another, self._lost)

    def _lost(self, row: pa.Table) -> pa.Table:
        [key] = row.select([field.name for field in KEY]).to_pylist()
        return pa.Table.from_pylist([problem(**key, kind="evaluate", detail=REASON)], self._schema)

    def _measured(self, table: pa.Table) -> pa.Table:
        pixels = cells(table["pixels"])
        rows = table.drop_columns(["pixels"]).to_pylist()
        for row, content in zip(rows, pixels, strict=True):
            shape = row["height"], row["width"], 3
            row["pixels"] = None if content is None else content.reshape(shape)
        problems: list[dict[str, Any]] = []
        measured = [self._compared(row, problems) for row in rows if _decoded(row, problems)]
        rows = [row for row in rows if "map" in row]
        try:
            self._ask(list(zip(rows, measured, strict=True)))
        except Exception:  # one of them; which, shows when each is asked alone
            for row, result in zip(rows, measured, strict=True):
                try:
                    self._ask([(row, result)])
                except Exception as error:
                    problems.append(_problem(row, "evaluate", one_line(error)))
        for result in measured:
            for name in self._metrics:
                if parts := SUITE[name].derive:
                    values = [result.get(part) for part in parts]
                    result[name] = None if None in values else self._metrics[name].measure(*values)
        return pa.Table.from_pylist([*measured, *problems], self._schema)

    def _compared(self, row: dict[str, Any], problems: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what is known of a map, with the metrics that compare it with annotations."""
        result = {name: row[name] for name in ("run", "image_id", "target", *COPIED)} | {"label": row["target_name"]}
        if self._annotations is None:
            return result
        if share := self._smooth.get(row["run"]):
            row["peak_x"], row["peak_y"] = peak_of(row["map"], share)
        try:
            annotation = self._annotations.find(row["image_id"])
            label, facts = facts_of(row, annotation, self._classes, self._kind)
        except Unmeasured as error:
            problems.append(_problem(row, error.kind, str(error)))
            return result
        except SessError as error:
            problems.append(_problem(row, "annotation", str(error)))
            return result
        area = float(facts.region.mean())
        result |= {"label": label, "area": area, "size": next(name for name, most in SIZES.items() if area <= most)}
        for name, metric in self._metrics.items():
            if compare := SUITE[name].compare:
                value = compare(metric, row["map"], facts)
                result[name] = value.tolist() if isinstance(value, np.ndarray) else value
        return result

    def _ask(self, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Fill in the metrics that ask the model, those of all maps in common batches."""
        model = self._model
        if model is None:
            return

        def requests() -> Iterator[tuple[Series, int]]:
            for row, _ in pairs:
                if row["pixels"] is not None:
                    classes = meant(row)
                    model.learn({row["target_name"]: classes})
                    target = model.target_of(classes)
                    image, saliency = at_input_size(row["pixels"], row["map"], model)
                    for metric in self._questions.values():
                        yield metric.series(image, saliency), target

        answers = scored(model, requests(), self._batch_size)
        for row, result in pairs:
            if row["pixels"] is None:
                continue
            scores = {question: next(answers) for question in self._questions}
            result["forwards"] = sum(map(len, scores.values()))
            for name, metric in self._metrics.items():
                if isinstance(metric, ModelMetric):
                    result[name] = metric.measure(scores[metric.question])


def _decoded(row: dict[str, Any], problems: list[dict[str, Any]]) -> bool:
    """Decode the map of a row; say whether there is one."""
    if row["problem"]:
        problems.append(_problem(row, row["problem"], row["detail"]))
    try:
        row["map"] = decode_map(row["saliency"]["bytes"], (row["height"], row["width"]))
    except Exception as error:
        row.pop("map", None)
        problems.append(_problem(row, "unreadable map", one_line(error)))
        return False
    if not row["map"].any():
        problems.append(_problem(row, "empty map", "all zeros"))
    return True


def _problem(row: dict[str, Any], kind: str, detail: str) -> dict[str, Any]:
    return problem(row["run"], row["image_id"], row["target"], kind, detail)


def write_results(table: pa.Table, access: Access, output: str, metrics: Sequence[str]) -> pa.Table:
    """Write a block of results and problems, all of one run, and return one row of counts for the driver."""
    use(access)
    store = Store(output)
    broken = table["problem"].is_valid()
    results, problems = table.filter(pc.invert(broken)), table.filter(broken)
    if results.num_rows:
        run = results["run"][0].as_py()
        store.write_table(f"results/{run}", results.select(results_schema(metrics).names))
    if problems.num_rows:
        store.write_table("problems", problems.select(PROBLEMS.names))
    kinds = Counter(zip(problems["run"].to_pylist(), problems["problem"].to_pylist(), strict=True))
    counts = {
        "maps": results.num_rows,
        "forwards": sum(count or 0 for count in results["forwards"].to_pylist()),
        "problems": [{"run": run, "problem": kind, "count": count} for (run, kind), count in kinds.items()],
    }
    return pa.Table.from_pylist([counts], COUNTS)


COUNTS = pa.schema(
    [
        ("maps", pa.int64()),
        ("forwards", pa.int64()),
        ("problems", pa.list_(pa.struct([("run", pa.string()), ("problem", pa.string()), ("count", pa.int64())]))),
    ]
)
