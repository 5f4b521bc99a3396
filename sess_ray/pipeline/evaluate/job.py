"""The evaluation job: a Ray Data graph from stored maps to metrics.

    maps (run, file, row, uri)    a table in the driver, one block a file of maps
      -> read_maps                CPU tasks; stored maps, and pixels where the model is asked
      -> EvaluateActor            GPU actors; annotations, and perturbed images of many maps in one batch
      -> write_results            CPU tasks; Parquet, then one line of counts for the driver

What cannot be measured becomes a row of problems/ with the reason; what a run lacks, the driver adds there.
"""

from __future__ import annotations

import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from sess_ray.errors import SessError
from sess_ray.io.access import public, public_command, use
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import Annotations
from sess_ray.io.inputs import find_images
from sess_ray.io.names import read_class_names
from sess_ray.io.store import Store
from sess_ray.metrics.suite import SUITE, choose
from sess_ray.models import Model, load_model
from sess_ray.pipeline.cluster.session import ARROW, TASK_CPUS, arriving, connect, map_blocks, pool
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.judging import (
    MAP_ROWS,
    PROBLEMS,
    EvaluateActor,
    problem,
    read_maps,
    results_schema,
    write_results,
)
from sess_ray.pipeline.evaluate.report import Line, as_csv, as_markdown, as_records, report
from sess_ray.pipeline.explain.targets import label_classes
from sess_ray.tables import markdown

EVALUATION = ("summary.json", "summary.csv", "summary.md", "results", "problems")


@dataclass
class Evaluation:
    """An evaluation that has been checked and can start: `prepare` makes it, `run` runs it.

    Attributes
    ----------
    config : EvaluateConfig
    metrics : list of str
        Of the suite.
    runs : dict of str to Store
    store : Store
        For the results.
    model : Model
    annotations : Annotations or None
    classes : dict of str to tuple of int
        What each label of the annotations means to the model; nothing for some.
    blocks : list of pa.Table
        The maps, those of a file together.
    missing : list of dict
        Rows of problems/ that are known before any map is read.
    """

    config: EvaluateConfig
    metrics: list[str]
    runs: dict[str, Store]
    store: Store
    model: Model
    annotations: Annotations | None
    classes: dict[str, tuple[int, ...]]
    blocks: list[pa.Table]
    missing: list[dict[str, Any]]

    @property
    def maps(self) -> int:
        """Number of maps."""
        return sum(block.num_rows for block in self.blocks)


@dataclass
class Outcome:
    """What an evaluation found.

    Attributes
    ----------
    lines : list of Line
        The summary.
    problems : Counter
        Number of rows of problems/ by (run, problem).
    forwards : int
        Inputs that the model was asked about.
    seconds : float
    """

    lines: list[Line]
    problems: Counter[tuple[str, str]]
    forwards: int
    seconds: float


def prepare(config: EvaluateConfig) -> Evaluation:
    """Check everything that can be checked before Ray starts.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    use(config.access())
    if not config.run:
        raise SessError("nothing to evaluate: give --run NAME=OUTPUT, the output of sess-ray explain")
    metrics = choose(config.metric_names(), annotated=config.annotations is not None)
    runs = {name: Store(url) for name, url in config.runs().items()}
    store = Store(config.output)
    for name, found in runs.items():
        if not found.tables("maps"):
            raise SessError(f"run {name}: {found.url} has no maps: give the --output of sess-ray explain")
        if found.url == store.url:
            raise SessError(f"--output {store.url} is run {name} itself: choose another folder")
    if not config.overwrite and store.is_used(EVALUATION):
        raise SessError(f"output {store.url} has an evaluation already: add --overwrite, or choose another --output")
    model = _model(config, runs)
    annotations = read_annotations(config.annotations) if config.annotations else None
    _check_packages(metrics, annotations if config.region == "segments" else None)
    classes = label_classes(annotations, config.class_map, model) if annotations else {}
    images = {item.image_id: item.uri for item in find_images(config.images)} if config.images else None
    blocks, missing = _blocks(config, runs, images)
    if annotations:
        missing += _without_map(annotations, classes, blocks, runs)
    store.check_writable()
    return Evaluation(config, metrics, runs, store, model, annotations, classes, blocks, missing)


def _check_packages(metrics: list[str], annotations: Annotations | None) -> None:
    """Say before any work starts which package is missing; `annotations` where their segments are wanted."""
    needed = {SUITE[name].package: name for name in metrics if SUITE[name].package}
    if annotations and any(thing.segments for found in annotations.by_id.values() for thing in found.objects):
        needed["pycocotools"] = "--region segments"
    for package, purpose in needed.items():
        if find_spec(package) is None:
            raise SessError(f"{purpose} needs {package}: install sess-ray[evaluate]")


def _model(config: EvaluateConfig, runs: dict[str, Store]) -> Model:
    """Load the model that is named, else that of the runs."""
    names = read_class_names(config.class_names) if config.class_names else None
    if config.model is not None:
        return load_model(config.model, config.weights, config.layer, class_names=names)
    told = {name: found.read_json("run.json") for name, found in runs.items()}
    for name, record in told.items():
        if record is None:
            raise SessError(f"run {name} has no run.json, it did not finish: give its --model")
    made = {name: record["model"]["weights_sha256"] for name, record in told.items() if record}
    if len(set(made.values())) > 1:
        raise SessError(f"runs {' and '.join(made)} are of different models: evaluate them apart, or give a --model")
    [first, *_] = [record["config"] for record in told.values() if record]
    return load_model(first["model"], first["weights"], first["layer"], class_names=names)


def _blocks(
    config: EvaluateConfig, runs: dict[str, Store], images: dict[str, str] | None
) -> tuple[list[pa.Table], list[dict[str, Any]]]:
    """List the maps of the runs; and those whose image is not among `images`."""
    blocks, missing = [], []
    for run, store in runs.items():
        left = config.limit
        names = store.tables("maps")
        for name, table in zip(names, store.read_tables(names, ["image_id", "uri", "target"]), strict=True):
            rows = []
            for number, row in enumerate(table.to_pylist()):
                uri = images.get(row["image_id"]) if images is not None else row["uri"]
                if uri is None:
                    missing.append(problem(run, row["image_id"], row["target"], "no image", f"not in {config.images}"))
                else:
                    rows.append({**row, "run": run, "file": name, "number": number, "uri": uri})
            rows = rows[:left]
            left = None if left is None else left - len(rows)
            if rows:
                blocks.append(pa.Table.from_pylist(rows, MAP_ROWS))
    return blocks, missing


def _without_map(
    annotations: Annotations, classes: dict[str, tuple[int, ...]], blocks: list[pa.Table], runs: dict[str, Store]
) -> list[dict[str, Any]]:
    """List what is annotated and has no map, and what is wrong with the annotations themselves."""
    targets: dict[str, dict[str, set[int]]] = {run: {} for run in runs}
    for block in blocks:
        for row in block.to_pylist():
            annotation = annotations.find(row["image_id"])
            if annotation:
                targets[row["run"]].setdefault(annotation.image_id, set()).add(row["target"])
    missing = [problem("", image_id, None, "annotation", detail) for image_id, detail in annotations.problems]
    for annotation in annotations.by_id.values():
        for label in dict.fromkeys(thing.label for thing in annotation.objects):
            if not classes[label]:
                missing.append(problem("", annotation.image_id, None, "unknown label", label))
                continue
            missing += [
                problem(run, annotation.image_id, None, "no map", label)
                for run, found in targets.items()
                if not found.get(annotation.image_id, set()).intersection(classes[label])
            ]
    return missing


def stream(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Run the graph; yield the counts of each block as soon as it is written. Ray must be connected."""
    import ray

    config = evaluation.config
    metrics = evaluation.metrics
    asks = any(SUITE[name].asks for name in metrics)
    model = ray.put(evaluation.model) if asks else None
    known = ray.put((evaluation.annotations, evaluation.classes)) if evaluation.annotations else None
    urls = {name: store.location for name, store in evaluation.runs.items()}
    tasks: dict[str, Any] = {**ARROW, "num_cpus": TASK_CPUS}
    reading = {"access": config.access(), "runs": urls, "pixels": asks, "max_pixels": config.max_pixels}
    writing = {"access": config.access(), "output": evaluation.store.location, "metrics": metrics}
    settings = (model, known, metrics, config.region, config.precision, config.batch_size)
    workers = pool(config.actors, config.gpus_per_actor, len(evaluation.blocks), config.address)
    maps = ray.data.from_blocks(evaluation.blocks).map_batches(read_maps, fn_kwargs=reading, **tasks)
    judged = map_blocks(maps, EvaluateActor, fn_constructor_args=settings, **workers)
    written = judged.map_batches(write_results, fn_kwargs=writing, **tasks)
    yield from arriving(written)


def run(evaluation: Evaluation, progress: Any = None) -> Outcome:
    """Run an evaluation to its end: results/, problems/ and, last, summary.md, .csv and .json.

    Parameters
    ----------
    evaluation : Evaluation
    progress : callable, optional
        Called with the number of maps that each written block holds.

    Returns
    -------
    Outcome
    """
    connect(evaluation.config.address)
    store, config = evaluation.store, evaluation.config
    if config.overwrite:
        store.clear(EVALUATION)
    problems: Counter[tuple[str, str]] = Counter((row["run"], row["problem"]) for row in evaluation.missing)
    if evaluation.missing:
        store.write_table("problems", pa.Table.from_pylist(evaluation.missing, PROBLEMS))
    begin, forwards = time.perf_counter(), 0
    for counts in stream(evaluation):
        problems.update({(row["run"], row["problem"]): row["count"] for row in counts["problems"]})
        forwards += counts["forwards"]
        if progress:
            progress(counts["maps"])
    seconds = time.perf_counter() - begin
    nothing = results_schema(evaluation.metrics).empty_table()
    results = {
        name: pa.concat_tables([nothing, *store.read_tables(store.tables(f"results/{name}"))])
        for name in evaluation.runs
    }
    outcome = Outcome(report(results, evaluation.metrics, config.compared()), problems, forwards, seconds)
    store.write("summary.md", as_text(evaluation, outcome).encode())
    store.write("summary.csv", as_csv(outcome.lines))
    store.write_json("summary.json", _record(evaluation, outcome))
    return outcome


def as_text(evaluation: Evaluation, outcome: Outcome) -> str:
    """Return summary.md: the tables, and what could not be measured."""
    config = evaluation.config
    parts = [
        f"# {public(config.output)}: {evaluation.maps} maps, {evaluation.model.name}\n",
        "In percent, with 95 % intervals (bootstrap over images). pointing_game is the mean over classes.\n",
        as_markdown(outcome.lines, list(evaluation.runs), evaluation.metrics),
    ]
    if outcome.problems:
        rows = [(run or "annotations", kind, count) for (run, kind), count in sorted(outcome.problems.items())]
        parts.append("## Problems: each is a row of problems/\n")
        parts.append(markdown([("run", "problem", "rows"), *rows]) + "\n")
    return "\n".join(parts)


def _record(evaluation: Evaluation, outcome: Outcome) -> dict[str, Any]:
    packages = ("sess-ray", "ray", "torch", "torchvision", "pyarrow", "pillow", "numpy")
    return {
        "config": evaluation.config.public(),
        "model": {"name": evaluation.model.name, "weights_sha256": evaluation.model.weights_sha256()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "maps": evaluation.maps,
        "forwards": outcome.forwards,
        "seconds": round(outcome.seconds, 3),
        "problems": [
            {"run": run, "problem": kind, "rows": count} for (run, kind), count in sorted(outcome.problems.items())
        ],
        "summary": as_records(outcome.lines),
        "command": public_command(sys.argv),
    }
