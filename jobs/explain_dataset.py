"""Explain every image of a dataset: saliency maps as Parquet.

Without flags: sample images, a small model that comes with a package, results in out/.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from tqdm import tqdm

from sess_ray import command
from sess_ray.pipeline.config import ExplainConfig

if TYPE_CHECKING:
    from sess_ray.pipeline.explain import Job, Summary
    from sess_ray.pipeline.targets import Task

app = command.command("explain_dataset.py", __doc__)


class Progress:
    """A line that tells how far a run is."""

    def __init__(self, total: int) -> None:
        interactive = sys.stderr.isatty()
        self._bar = tqdm(total=total, unit="image", dynamic_ncols=True, mininterval=0.2 if interactive else 10)

    def __call__(self, summary: Summary) -> None:
        speed = summary.windows / summary.seconds
        kept = 100 * summary.kept / summary.patches if summary.patches else 0
        self._bar.set_postfix_str(f"{speed:.0f} patches/s, {kept:.0f} % kept, {summary.errors} errors", refresh=False)
        self._bar.update(summary.images + summary.errors - self._bar.n)

    def close(self) -> None:
        self._bar.close()


@app.default
def explain(
    config: Annotated[ExplainConfig, Parameter(name="*")] = ExplainConfig(),  # noqa: B008 - frozen
    *,
    config_file: Annotated[
        str | None, Parameter(name="--config", help="A YAML file of these settings; flags win.")
    ] = None,
    list_methods: Annotated[bool, Parameter(help="Print a table of the base methods, and stop.", negative="")] = False,
    list_models: Annotated[bool, Parameter(help="Print a table of the models, and stop.", negative="")] = False,
) -> int:
    """Explain a dataset; return the exit code."""
    if list_methods or list_models:
        _list(methods=list_methods)
        return 0
    from sess_ray.pipeline.explain import prepare, run

    del config_file  # read by command.run, before the flags are
    job = prepare(config)
    if config.dry_run:
        _describe(job)
        return 0
    print(f"explaining {len(job.tasks)} images with {job.model.name}, {config.method} on {job.model.layer}", flush=True)
    progress = Progress(len(job.tasks))
    try:
        summary = run(job, progress)
    finally:
        progress.close()
    _report(job, summary)
    too_many = config.max_errors is not None and summary.errors > config.max_errors
    return command.FAILED if too_many or not summary.images else 0


def _list(*, methods: bool) -> None:
    from sess_ray.methods import table
    from sess_ray.models import model_table
    from sess_ray.tables import markdown

    print(markdown(table() if methods else model_table()))


def _describe(job: Job) -> None:
    errors = sum(task.error is not None for task in job.tasks)
    print(f"would explain {len(job.tasks) - errors} images, {errors} with errors, into {job.store.url}")
    print(
        f"model {job.model.name}, layer {job.model.layer}, input {job.model.input_size} px,"
        f" {job.model.num_classes} classes"
    )
    for task in job.tasks[:5]:
        print(f"  {task.item.image_id!r}: {task.error or _named(task)}")


def _named(task: Task) -> str:
    """Return the classes to explain of an image; of several that one label means, the model will choose."""
    if isinstance(task.targets, str):
        return task.targets
    return ", ".join(" or ".join(map(str, alternatives)) for alternatives in task.targets)


def _report(job: Job, summary: Summary) -> None:
    rate = summary.images / summary.seconds if summary.seconds else 0
    print(
        f"{summary.images} images, {summary.maps} maps, {summary.errors} errors"
        f" in {summary.seconds:.1f} s: {rate:.2f} images/s"
    )
    for name in summary.errors_files[:1]:
        for row in job.store.read_table(name).to_pylist()[:3]:
            print(f"  {row['image_id']!r}, {row['stage']}: {row['error']}")
    if summary.errors:
        print(f"errors:   {job.store.path('errors/')}")
    print(f"maps:     {job.store.path('maps/')}")
    if summary.overlays:
        print(f"pictures: {job.store.path('overlays/')}")


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    return command.run(app, arguments, "stopped: what is written stays; add --overwrite to start again")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
