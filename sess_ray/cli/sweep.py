"""Explain and evaluate a dataset with every combination of some settings; write tables, and plots over the cost.

    sess-ray sweep --sweep num_scales=1,2,5,10 --sweep pre_filter_ratio=0,0.9 --input IMAGES --annotations FILE

Runs that an earlier sweep has finished in the same output are used again, and so is its evaluation if nothing has
changed. With several methods, --method-option METHOD.key=value sets an option of one. Without --output results go to
out/sweep.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from itertools import product, zip_longest
from math import ceil
from typing import Annotated, Any

from cyclopts import Parameter

from sess_ray.access import public
from sess_ray.cli import command
from sess_ray.errors import SessError, unknown
from sess_ray.io.store import FINISHED, Store
from sess_ray.pipeline.cluster.flags import MEASUREMENT, METRICS
from sess_ray.pipeline.cluster.settings import key_values
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.report import Line, from_records
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.resume import DECIDED, refuse_other_settings, said
from sess_ray.small import read_small
from sess_ray.tables import markdown

app = command.command("sess-ray sweep", __doc__)
reader = command.command("sess-ray explain", None)


@reader.default
def read(config: Annotated[ExplainConfig, Parameter(name="*")] = ExplainConfig()) -> ExplainConfig:  # noqa: B008
    """Return settings as sess-ray explain takes them."""
    return config


# Settings of sess-ray explain without a meaning here: each run is made anew, or used as it is.
UNUSED = ("wait", "dry_run", "overlays", "resume_anyway", "retry_errors", "max_errors")


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination of the settings that are swept.

    Attributes
    ----------
    name : str
        What is swept, and to what.
    base : str
        The point that it is compared with, which may be itself.
    config : ExplainConfig
    """

    name: str
    base: str
    config: ExplainConfig


def points(sweep: Sequence[str], common: ExplainConfig, baseline: str | None = None) -> list[Point]:
    """Return every combination.

    Parameters
    ----------
    sweep : sequence of str
        ``setting=value,value,...`` of `ExplainConfig`.
    common : ExplainConfig
        All other settings. Of its options of methods, ``METHOD.key=value`` is for the points with this method.
    baseline : str, optional
        ``setting=value,...``: what points are compared with; in settings that it does not name, a point is compared
        with its own kind. By default the first value of every setting. The name of a point will do, too.

    Raises
    ------
    SessError
        If there is no such setting, or the baseline names a value that is not swept.

    Examples
    --------
    >>> found = points(["method=cam,gradcam", "num_scales=0,10"], ExplainConfig())
    >>> found[3].name, found[3].base
    ('method gradcam, num_scales 10', 'method cam, num_scales 0')
    >>> points(["method=cam,gradcam", "num_scales=0,10"], ExplainConfig(), "num_scales=0")[3].base
    'method gradcam, num_scales 0'
    """
    known = [field.name for field in dataclasses.fields(ExplainConfig)]
    axes: dict[str, dict[str, Any]] = {}
    for name, values in key_values(sweep, "--sweep").items():
        if name not in known:
            raise unknown("setting to sweep", name, known)
        axes[name] = {text.strip(): _parsed(name, text.strip()) for text in values.split(",")}
    if not axes:
        raise SessError("nothing to sweep: give --sweep SETTING=VALUE,VALUE,...")
    base = {name: next(iter(values)) for name, values in axes.items()} if baseline is None else _base(baseline, axes)

    def named(point: Mapping[str, str]) -> str:
        return ", ".join(f"{name} {text}" for name, text in point.items())

    found = []
    for texts in product(*axes.values()):
        point = dict(zip(axes, texts, strict=True))
        parsed = {name: axes[name][text] for name, text in point.items()}
        found.append(Point(named(point), named(point | base), dataclasses.replace(common, **parsed)))
    methods = {point.config.method for point in found}
    return [dataclasses.replace(point, config=_own_options(point.config, methods)) for point in found]


def _base(baseline: str, axes: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return what a baseline fixes: ``setting=value`` or, as in the name of a point, ``setting value``."""
    entries = [entry.strip() for entry in baseline.split(",")]
    found = key_values([entry if "=" in entry else entry.replace(" ", "=", 1) for entry in entries], "--baseline")
    for name, text in found.items():
        if name not in axes:
            raise unknown("setting in --baseline", name, axes)
        if text not in axes[name]:
            raise unknown(f"value of {name} in --baseline", text, axes[name])
    return found


def _own_options(config: ExplainConfig, methods: Collection[str]) -> ExplainConfig:
    options = command.options_of(config.method, config.method_option, methods)
    return dataclasses.replace(config, method_option=tuple(f"{key}={value}" for key, value in options.items()))


def _parsed(name: str, text: str) -> Any:
    """Return a setting's value out of text, as sess-ray explain takes it."""
    return getattr(reader([f"--{name.replace('_', '-')}={text}"], exit_on_error=False, print_error=False), name)


AS_GIVEN = ("weights", *DECIDED)


def finished(url: str, config: ExplainConfig) -> dict[str, Any] | None:
    """Return what an earlier sweep has recorded of a run; `SessError` if it was one with other settings."""
    store = Store(url)
    refuse_other_settings(store, config)
    record = store.read_json(FINISHED)
    if record is None or record["config"]["limit"] != config.limit:
        return None
    # What these come to shows only when the model is loaded: here they are compared as they were given.
    now, before = config.public(), record["config"]
    other = [
        f"{name} was {said(before[name])} and is {said(now[name])}" for name in AS_GIVEN if now[name] != before[name]
    ]
    if other:
        raise SessError(f"{public(url)} is of a run with other settings ({'; '.join(other)}): add --overwrite")
    return record


@app.default
def main(
    config: Annotated[ExplainConfig, Parameter(name="*")] = ExplainConfig(output="out/sweep"),  # noqa: B008 - frozen
    *,
    sweep: Annotated[
        tuple[str, ...],
        MEASUREMENT,
        Parameter(help="A setting to vary, as SETTING=VALUE,VALUE,...; may be given several times."),
    ] = (),
    baseline: Annotated[
        str | None,
        MEASUREMENT,
        Parameter(
            help="What every combination is compared with, as SETTING=VALUE,...; settings that it does not name stay "
            "those of the combination. By default the first value of every setting."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        METRICS,
        Parameter(help="Names or beginnings of names, separated by commas; as for sess-ray evaluate."),
    ] = None,
    evaluation_batch_size: Annotated[
        int | None,
        METRICS,
        Parameter(help="Images in one forward pass of the evaluation. By default as for sess-ray evaluate."),
    ] = None,
    config_file: command.ConfigFile = None,
) -> int:
    """Sweep; return the exit code."""
    from sess_ray import methods
    from sess_ray.pipeline.explain import job as explain
    from sess_ray.pipeline.explain.prepare import prepare

    del config_file  # read by command.run, before the flags are
    command.refuse_unused(config, UNUSED, "sess-ray sweep")
    chosen = points(sweep, dataclasses.replace(config, overwrite=True, overlays=0), baseline)
    for point in chosen:  # before the first of them takes hours
        methods.get(point.config.method).parsed(point.config.method_options())
    _check_evaluation(config, metrics)
    urls = {point.name: f"{config.output}/runs/{point.name.replace(', ', '_').replace(' ', '-')}" for point in chosen}
    costs = {}
    for point in chosen:
        url = urls[point.name]
        record = None if config.overwrite else finished(url, point.config)
        if record is None:
            print(f"explaining: {point.name}", flush=True)
            explain.run(prepare(dataclasses.replace(point.config, output=url)))
            record = Store(url).read_json(FINISHED)
        assert record is not None
        costs[point.name] = record["actor_seconds"] / max(1, record["counts"]["images"])
    settings = EvaluateConfig(
        run=tuple(f"{name}={url}" for name, url in urls.items()),
        compare=tuple(f"{point.name}={point.base}" for point in chosen if point.name != point.base),
        output=f"{config.output}/evaluation",
        annotations=config.annotations,
        class_map=config.class_map,
        metrics=metrics,
        precision=config.precision,
        batch_size=evaluation_batch_size,
        actors=config.actors,
        gpus_per_actor=config.gpus_per_actor,
        address=config.address,
        storage_option=config.storage_option,
        read_timeout=config.read_timeout,
        retry_seconds=config.retry_seconds,
        overwrite=True,
    )
    lines, measured, text = _evaluated(settings)
    store = Store(config.output)
    seconds = [("run", "actor seconds an image"), *((name, f"{cost:.3f}") for name, cost in costs.items())]
    text += f"\n## Cost\n\n{markdown(seconds)}\n"
    store.write("sweep.md", text.encode())
    print(text)
    store.write("sweep.png", plot(lines, chosen, measured))
    store.write("cost.png", plot(lines, chosen, measured, costs))
    print(f"written: {public(store.url)}: evaluation/report.html, sweep.md, sweep.png, cost.png, runs/, evaluation/")
    return 0


def _check_evaluation(config: ExplainConfig, metrics: str | None) -> None:
    """Say before anything is explained why it could not be evaluated, or drawn."""
    from sess_ray.metrics.suite import choose
    from sess_ray.pipeline.evaluate.prepare import check_packages

    names = EvaluateConfig(metrics=metrics).metric_names()
    check_packages(choose(names, annotated=config.annotations is not None), None)
    if find_spec("matplotlib") is None:
        raise SessError("the plot needs matplotlib: install sess-ray[plot]")


def _evaluated(settings: EvaluateConfig) -> tuple[list[Line], list[str], str]:
    """Return the lines, the metrics and the text of an evaluation: one that an earlier sweep has made, or a new one."""
    from sess_ray.pipeline.evaluate import job
    from sess_ray.pipeline.evaluate.prepare import prepare

    if record := job.unchanged(settings):
        print(f"evaluated before: {len(settings.run)} runs", flush=True)
        text = read_small(f"{Store(settings.output).location}/summary.md", "evaluation")
        return from_records(record["summary"]), record["metrics"], text.decode()
    print(f"evaluating {len(settings.run)} runs", flush=True)
    evaluation = prepare(settings)
    outcome = job.run(evaluation)
    return outcome.lines, evaluation.metrics, job.as_text(evaluation, outcome)


def plot(
    lines: Sequence[Line], chosen: Sequence[Point], metrics: Sequence[str], costs: Mapping[str, float] | None = None
) -> bytes:
    """Draw each metric with its interval over the last setting, or against the cost; return a PNG.

    A curve joins the values of the last setting.
    """
    from matplotlib.figure import Figure

    found = {(line.run, line.metric): line.summary for line in lines if line.group == "all" and not line.base}
    drawn = [metric for metric in metrics if any((point.name, metric) in found for point in chosen)]
    columns = min(4, len(drawn))
    rows = ceil(len(drawn) / columns)
    setting = chosen[0].name.rpartition(", ")[2].partition(" ")[0]
    figure = Figure(figsize=(4 * columns, 3.5 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, metric in zip_longest(axes, drawn):
        if metric is None:
            axis.axis("off")
            continue
        for curve in dict.fromkeys(_curve(point) for point in chosen):
            members = [point for point in chosen if _curve(point) == curve and (point.name, metric) in found]
            values = [found[point.name, metric] for point in members]
            means = [100 * value.mean for value in values]
            reach = [[100 * (v.mean - v.low) for v in values], [100 * (v.high - v.mean) for v in values]]
            texts = [point.name.rpartition(" ")[2] for point in members]
            across = [costs[point.name] for point in members] if costs else texts
            axis.errorbar(across, means, reach, fmt="o-", capsize=3, label=curve or None)
            for text, place in zip(texts, zip(across, means, strict=True), strict=True) if costs else ():
                axis.annotate(text, place, xytext=(4, 4), textcoords="offset points", fontsize=7)
        axis.set(title=metric, ylabel="%", xlabel="actor seconds an image" if costs else setting)
        if costs:
            axis.set_xscale("log")
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _curve(point: Point) -> str:
    """Return what the points of a curve have in common: all settings but the last."""
    return point.name.rpartition(", ")[0]
