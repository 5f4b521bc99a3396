"""Explain every image of a dataset: make saliency maps, stored as Parquet.

Without flags it explains sample images with a small model that comes with a package, and writes to out/.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sess_ray.access import public
from sess_ray.cli import command
from sess_ray.cli.telling import Progress, duration, errors_of, ineffective, next_steps, size
from sess_ray.errors import SessError
from sess_ray.pipeline.cluster.flags import METHOD, MODEL, OUTPUT, check
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.windows import in_words

if TYPE_CHECKING:
    from sess_ray.models import Model
    from sess_ray.pipeline.estimate.reckoning import Estimate
    from sess_ray.pipeline.explain.prepare import Job
    from sess_ray.pipeline.explain.record import Summary

app = command.command("sess-ray explain", __doc__)
GROUPS_TOLD = 5
INTERRUPTED = "stopped: what is written stays; the same command goes on"


@app.default
def explain(
    config: Annotated[ExplainConfig, Parameter(name="*")] = ExplainConfig(),  # noqa: B008 - frozen
    *,
    config_file: command.ConfigFile = None,
    list_methods: Annotated[
        bool, METHOD, Parameter(help="Print a table of the methods, and stop.", negative="")
    ] = False,
    list_models: Annotated[bool, MODEL, Parameter(help="Print a table of the models, and stop.", negative="")] = False,
    gpus: Annotated[
        int | None, OUTPUT, Parameter(help="With --dry-run: estimate for this many GPUs like the one here.")
    ] = None,
    price_per_gpu_hour: Annotated[float | None, OUTPUT, Parameter(help="With --dry-run: estimate the cost.")] = None,
) -> int:
    """Explain a dataset; return the exit code."""
    if list_methods or list_models:
        _list(methods=list_methods, models=list_models)
        return 0
    from sess_ray.pipeline.cluster.session import start_early
    from sess_ray.pipeline.explain.prepare import prepare

    del config_file  # read by command.run, before the flags are
    check({"gpus": gpus, "price_per_gpu_hour": price_per_gpu_hour})
    if config.dry_run:
        _describe(prepare(config), gpus, price_per_gpu_hour)
        return 0
    if gpus is not None or price_per_gpu_hour is not None:
        raise SessError("--gpus and --price-per-gpu-hour are what --dry-run reckons with: a run takes --actors")
    from sess_ray.io.lease import Lease

    with Lease(wait=config.wait) as lease:
        job = prepare(config, meanwhile=lambda: start_early(config.address), claim=lease.take)
        from sess_ray.pipeline.explain.job import run

        if job.left:
            print(f"explaining {_number(job)} with {job.model.name}, {config.method} on {job.model.layer}")
            _say(job)
        else:
            print(_nothing_left(job), flush=True)
        progress = Progress(job.left if job.countable else None)
        try:
            summary = run(job, progress, lease)
        finally:
            progress.close()
    _report(job, summary)
    too_many = config.max_errors is not None and summary.total.errors > config.max_errors
    return command.FAILED if too_many or not summary.total.images else 0


def _number(job: Job) -> str:
    import pyarrow.compute as pc

    from sess_ray.io.items import shard_rows

    shards = pc.sum(shard_rows(job.tasks["uri"])).as_py() or 0
    kinds = {"image": job.left - shards, "tar shard": shards}
    number = " and ".join(command.counted(count, unit) for unit, count in kinds.items() if count)
    return (
        f"{number} ({job.finished:,} more {'is' if job.finished == 1 else 'are'} finished)" if job.finished else number
    )


def _nothing_left(job: Job) -> str:
    there = command.counted(job.inputs, "image")
    they = "it" if job.inputs == 1 else "they"
    return f"nothing is left to explain: {there} of the input, and the output holds what {they} gave"


def _list(*, methods: bool, models: bool) -> None:
    from sess_ray.methods import table
    from sess_ray.models import model_table
    from sess_ray.tables import markdown

    print(*(markdown(rows()) for rows, asked in ((table, methods), (model_table, models)) if asked), sep="\n\n")


def _describe(job: Job, gpus: int | None, price: float | None) -> None:
    if not job.left:
        print(_nothing_left(job))
        return
    errors = round(job.share * (job.tasks.num_rows - job.tasks["error"].null_count))
    failing = f", {errors:,} of which will end in errors/," if errors else ""
    print(f"would explain {_number(job)}{failing} into {public(job.store.url)}")
    print(
        f"model {job.model.name}, layer {job.model.layer}, input {in_words(job.model.input_size)} px,"
        f" {job.model.num_classes} classes"
    )
    _say(job)
    for task in job.tasks.slice(0, 5).to_pylist():
        print(f"  {task['image_id']!r}: {task['error'] or task['top'] or _named(task['targets'], job.model)}")
    if job.tasks["error"].null_count:
        from sess_ray.pipeline.estimate.reckoning import estimate

        print("measuring this machine for some seconds ...", flush=True)
        _tell(estimate(job, gpus), price)


def _tell(found: Estimate, price: float | None) -> None:
    """Print what a job will take."""
    about = "" if found.counted else "about "
    least = "at least " if found.at_least else ""
    large = "of unknown size" if found.output_bytes is None else size(found.output_bytes)
    if found.gpus:
        workers = "1 GPU" if found.gpus == 1 else f"{found.gpus:g} GPUs"
    else:
        workers = f"{command.counted(found.actors, 'actor')} on CPUs"
    hours = found.seconds / 3600
    print(
        f"images:  {about}{found.images:,}, of which {found.errors:,} will end in errors/"
        f" (the sizes of {found.looked:,} were read)",
        *(f"\n  {line}" for line in found.wrong),
        sep="",
    )
    print(f"patches: {about}{found.windows:,}")
    print(f"output:  {about}{command.counted(found.maps, 'map')}, {large}")
    print(
        f"speed:   {least}{found.seconds_per_image:.3g} s an image in each actor, measured on {found.device}"
        f" ({found.measured} images), and {found.task_seconds_per_image:.3g} s of a CPU to read, decode and encode it"
    )
    start = f"; an engine was ready after {found.start_seconds:.1f} s" if found.start_seconds else ""
    print(f"time:    {least}{duration(found.seconds)} with {workers}, after the start (Ray, imports, the model{start})")
    if price is not None and found.gpus:
        print(f"cost:    {least}{found.gpus * hours * price:,.2f}")
    elif price is not None:
        print("cost:    unknown: there is no GPU to be paid for (--gpus N)")
    if found.gpus and found.device == "cpu":
        print("This machine has no GPU: give the command on one that has, to know what GPUs take.")


def _say(job: Job) -> None:
    """Print what else is to be known of a job before it starts."""
    lines = [f"{line}\n" for line in (*job.left_out, *ineffective(job.config))]
    print(_notes(job), _groups(job), *lines, sep="", end="", flush=True)


def _notes(job: Job) -> str:
    """Return a line on each thing that was done to read the model."""
    return "".join(f"{job.model.name}: {note}\n" for note in job.model.notes)


def _groups(job: Job) -> str:
    """Return a line on the targets that mean several classes, or nothing."""
    sizes = [f"{name} ({len(classes)} classes)" for name, classes in job.groups.items()]
    more = f" and {len(sizes) - GROUPS_TOLD} more" if len(sizes) > GROUPS_TOLD else ""
    return f"explained as groups: {', '.join(sizes[:GROUPS_TOLD])}{more}\n" if sizes else ""


def _named(targets: list[list[int]] | None, model: Model) -> str:
    """Return the targets of an image; of several classes that one label means, the model may choose."""
    if targets is None:
        return "its label"
    return "; ".join(
        " or ".join(
            model.target_name(target)
            if target >= model.num_classes or not model.classes
            else f"{target} ({model.class_name(target)})"
            for target in alternatives
        )
        for alternatives in targets
    )


def _report(job: Job, summary: Summary) -> None:
    total = summary.total
    if job.left:
        rate = summary.images / summary.seconds if summary.seconds else 0
        busy = "" if summary.busy is None else f", actors {summary.busy:.0%} busy"
        held = ", ".join([command.counted(summary.images, "image"), command.counted(summary.maps, "map")])
        print(f"{held}, {errors_of(summary)} in {summary.seconds:.1f} s: {rate:.2f} images/s{busy}")
    if (total.images, total.errors) != (summary.images, summary.errors):
        numbers = {"image": total.images, "map": total.maps, "error": total.errors}
        print(f"the output now holds {', '.join(command.counted(number, unit) for unit, number in numbers.items())}")
    for row in summary.examples:
        print(f"  {row['image_id']!r}, {row['stage']}: {row['error']}")
    if total.errors:
        print(f"errors:   {job.store.path('errors/')} (--retry-errors tries them again)")
    print(f"maps:     {job.store.path('maps/')}")
    if summary.overlays:
        print(f"pictures: {job.store.path('overlays/')}")
    if total.images:
        print(*next_steps(job, sys.argv[0], os.environ), sep="\n")
