"""The evaluation job: a Ray Data graph from stored maps to metrics.

    parts (run, file, rows)       a line in the driver for each file of maps, or part of one
      -> read_maps                CPU tasks; stored maps, and pixels where the model is asked
      -> EvaluateActor            GPU actors; annotations, and perturbed images of many maps in one batch
      -> write_results            CPU tasks; Parquet, then one line of counts for the driver
    summary, report.html          tasks, for few files the driver; they read results/ some thousand rows at a time and
                                  hold sums

What cannot be measured becomes a row of problems/ with the reason; what a run lacks, the driver adds there.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from sess_ray.access import public, public_command
from sess_ray.io.store import FINISHED, Store
from sess_ray.metrics.suite import SUITE, choose
from sess_ray.pipeline.cluster.calls import Calls, Here, Tasks
from sess_ray.pipeline.cluster.output import versions
from sess_ray.pipeline.cluster.session import OF_TASKS, arriving, connect, map_blocks, pool
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.judging import PROBLEMS, EvaluateActor, read_maps, write_results
from sess_ray.pipeline.evaluate.page import Report, page
from sess_ray.pipeline.evaluate.pictures import pictures
from sess_ray.pipeline.evaluate.prepare import EVALUATION, Evaluation
from sess_ray.pipeline.evaluate.report import Line, as_csv, as_markdown, as_records, report
from sess_ray.pipeline.evaluate.results import Chunks, grouped
from sess_ray.tables import markdown

# Settings on which no number depends.
FREE = frozenset(
    ("output", "overwrite", "batch_size", "actors", "gpus_per_actor", "address", "read_timeout", "retry_seconds")
)
ACTOR_MAPS = 512  # for more actors than there are blocks: a block's maps travel on some dozens or hundreds at a time
PROBLEM_ROWS = 100_000  # of a file


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


def stream(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Run the graph; yield the counts of each block as soon as it is written. Ray must be connected."""
    import ray

    config = evaluation.config
    metrics = evaluation.metrics
    asks = any(SUITE[name].asks for name in metrics)
    model = ray.put(evaluation.model) if asks else None
    known = ray.put((evaluation.annotations, evaluation.classes)) if evaluation.annotations else None
    urls = {name: store.location for name, store in evaluation.runs.items()}
    reading = {"access": config.access(), "runs": urls, "pixels": asks, "max_pixels": config.max_pixels}
    writing = {"access": config.access(), "output": evaluation.store.location, "metrics": metrics}
    settings = (model, known, metrics, config.region, config.precision, config.batch_size, evaluation.smooth)
    selection = evaluation.selection
    if selection.moved:
        reading["moved"] = ray.put(selection.moved)
    most = max(len(selection.blocks), selection.maps // ACTOR_MAPS)
    workers = pool(config.actors, config.gpus_per_actor, most, config.address)
    maps = ray.data.from_blocks(selection.blocks).map_batches(read_maps, fn_kwargs=reading, **OF_TASKS)
    judged = map_blocks(maps, EvaluateActor, fn_constructor_args=settings, **workers)
    written = judged.map_batches(write_results, fn_kwargs=writing, **OF_TASKS)
    yield from arriving(written)


def run(evaluation: Evaluation, progress: Any = None) -> Outcome:
    """Run an evaluation to its end: results/, problems/ and, last, report.html and summary.md, .csv and .json.

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
    problems: Counter[tuple[str, str]] = Counter()
    known = evaluation.problems()
    while some := list(islice(known, PROBLEM_ROWS)):
        problems.update((row["run"], row["problem"]) for row in some)
        store.write_table("problems", pa.Table.from_pylist(some, PROBLEMS))
    begin, forwards = time.perf_counter(), 0
    for counts in stream(evaluation):
        problems.update({(row["run"], row["problem"]): row["count"] for row in counts["problems"]})
        forwards += counts["forwards"]
        if progress:
            progress(counts["maps"])
    seconds = time.perf_counter() - begin
    results = {name: grouped(store, name) for name in evaluation.runs}
    call = callers(config, results)
    outcome = Outcome(report(results, evaluation.metrics, config.compared(), call), problems, forwards, seconds)
    store.write("summary.md", as_text(evaluation, outcome).encode())
    store.write("summary.csv", as_csv(outcome.lines))
    store.write("report.html", page(_report(evaluation, outcome, results, call)).encode())
    store.write_json("summary.json", _record(evaluation, outcome))
    return outcome


def as_text(evaluation: Evaluation, outcome: Outcome) -> str:
    """Return summary.md: the tables, and what could not be measured."""
    config = evaluation.config
    parts = [
        f"# {public(config.output)}: {evaluation.maps} maps, {evaluation.model.name}\n",
        read_as(evaluation) + "\n",
        as_markdown(outcome.lines, list(evaluation.runs), evaluation.metrics),
    ]
    if outcome.problems:
        rows = [(run or "annotations", kind, count) for (run, kind), count in sorted(outcome.problems.items())]
        parts.append("## Problems: each is a row of problems/\n")
        parts.append(markdown([("run", "problem", "rows"), *rows]) + "\n")
    return "\n".join(parts)


def callers(config: EvaluateConfig, results: Mapping[str, Sequence[Chunks]]) -> Calls:
    """Return what sums up results: for few files this process, which is there already, else tasks. Ray is connected."""
    return Tasks(config.access()) if max(map(len, results.values()), default=0) > 1 else Here()


def _report(evaluation: Evaluation, outcome: Outcome, results: Mapping[str, Sequence[Chunks]], call: Calls) -> Report:
    ordered, shown = pictures(evaluation, results, evaluation.config.compared(), call)
    return Report(
        title=f"Evaluation of {' and '.join(evaluation.runs)}",
        subtitle=f"{evaluation.maps} maps, {evaluation.model.name}",
        notes=read_as(evaluation),
        runs=list(evaluation.runs),
        metrics=evaluation.metrics,
        settings=evaluation.settings,
        lines=outcome.lines,
        problems=[(run or "annotations", kind, count) for (run, kind), count in sorted(outcome.problems.items())],
        ordered=ordered,
        pictures=shown,
    )


def read_as(evaluation: Evaluation) -> str:
    """Return what one has to know to read the tables."""
    told = ["In percent, with 95 % intervals (bootstrap over images)."]
    if pointing := [name for name in evaluation.metrics if name.startswith("pointing_game")]:
        told.append(f"{pointing[0]} is the mean over classes.")
        why = "As in its benchmark, maps" if evaluation.config.pointing_smooth is None else "By --pointing-smooth, maps"
        for share in sorted(set(evaluation.smooth.values()) - {0.0}):
            runs = ", ".join(name for name, own in evaluation.smooth.items() if own == share)
            told.append(f"{why} of {runs} are blurred for it: sigma {share:g} of the longer side.")
    aiming = [name for name in evaluation.metrics if name.startswith(("pointing", "pxap"))]
    if aiming and evaluation.config.region == "boxes":
        told.append("By --region, the pointing game and PxAP aim at boxes, also of objects that have segments.")
    if "energy_pointing_game" in evaluation.metrics:
        told.append("Sharpening alone raises energy_pointing_game; pxap and pointing do not change by it.")
    return "\n".join(told)


def _started(run: Store) -> str | None:
    """Return when a run was started, which another run in the same place was not."""
    return (run.read_json(FINISHED) or {}).get("started")


def unchanged(config: EvaluateConfig) -> dict[str, Any] | None:
    """Return the summary.json of an evaluation with the same settings of the same runs; None where there is none.

    Parameters
    ----------
    config : EvaluateConfig
        What makes it faster or slower does not count.
    """
    store = Store(config.output)
    record = store.read_json("summary.json")
    if record is None:
        return None
    before, now = (
        {name: value for name, value in given.items() if name not in FREE}
        for given in (record["config"], json.loads(json.dumps(config.public())))
    )
    metrics = choose(config.metric_names(), annotated=config.annotations is not None)
    runs = {name: _started(Store(url)) for name, url in config.runs().items()}
    same = before == now and record.get("metrics") == metrics and record.get("runs") == runs
    return record if same and None not in runs.values() else None


def _record(evaluation: Evaluation, outcome: Outcome) -> dict[str, Any]:
    packages = ("sess-ray", "ray", "torch", "torchvision", "pyarrow", "pillow", "numpy")
    return {
        "config": evaluation.config.public(),
        "model": {"name": evaluation.model.name, "weights_sha256": evaluation.model.weights_sha256()},
        "versions": versions(*packages),
        "metrics": evaluation.metrics,
        "runs": {name: _started(store) for name, store in evaluation.runs.items()},
        "maps": evaluation.maps,
        "pointing_smooth": evaluation.smooth,
        "forwards": outcome.forwards,
        "seconds": round(outcome.seconds, 3),
        "problems": [
            {"run": run, "problem": kind, "rows": count} for (run, kind), count in sorted(outcome.problems.items())
        ],
        "summary": as_records(outcome.lines),
        "command": public_command(sys.argv),
    }
