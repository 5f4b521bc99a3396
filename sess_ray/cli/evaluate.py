"""Evaluate runs of sess-ray explain by the field's metrics, and compare them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from sess_ray.access import public
from sess_ray.cli import command
from sess_ray.pipeline.evaluate.config import EvaluateConfig

app = command.command("sess-ray evaluate", __doc__)


@app.default
def evaluate(
    config: Annotated[EvaluateConfig, Parameter(name="*")] = EvaluateConfig(),  # noqa: B008 - frozen
    *,
    config_file: command.ConfigFile = None,
) -> int:
    """Evaluate; return the exit code."""
    from sess_ray.pipeline.evaluate.job import as_text, run
    from sess_ray.pipeline.evaluate.prepare import prepare

    del config_file  # read by command.run, before the flags are
    evaluation = prepare(config)
    print(f"{evaluation.maps} maps, metrics: {', '.join(evaluation.metrics)}", flush=True)
    with command.progress("map", evaluation.maps) as progress:
        outcome = run(evaluation, progress)
    print(as_text(evaluation, outcome))
    files = "report.html, summary.md, summary.csv, summary.json, results/, problems/"
    print(f"written: {public(evaluation.store.url)}: {files}")
    return 0
