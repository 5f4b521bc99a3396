"""From results, a row a map, to the tables that papers print."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from math import isnan, nan
from typing import Any

from sess_ray.metrics.metric import Summary
from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.cluster.calls import Calls, Here
from sess_ray.pipeline.evaluate import pairing
from sess_ray.pipeline.evaluate.counting import counted
from sess_ray.pipeline.evaluate.results import SIZES, Chunks
from sess_ray.tables import markdown


@dataclass(frozen=True)
class Line:
    """A metric over some maps of a run.

    Attributes
    ----------
    run : str
    base : str
        The run that it is compared with: the summary is of the difference, over maps that both have. Else empty.
    group, value : str
        All maps ("all", ""), or those of a size or a class of target ("size", "< 5 %").
    metric : str
    summary : Summary
        Shares of 1.
    """

    run: str
    base: str
    group: str
    value: str
    metric: str
    summary: Summary


def report(
    results: Mapping[str, Sequence[Chunks]],
    metrics: Sequence[str],
    compared: Iterable[tuple[str, str]] = (),
    call: Calls | None = None,
) -> list[Line]:
    """Summarise results.

    Parameters
    ----------
    results : mapping of str to sequence of callables
        What reads the rows of results/ of each run, some files each.
    metrics : sequence of str
        Columns, of the suite.
    compared : iterable of (str, str)
        Runs, each with the one that it is compared with.
    call : callable, optional
        Calls functions; by default in this process. No number depends on it.

    Returns
    -------
    list of Line
        For each run all maps, then by size and by class, classes by name; then the differences.
    """
    call = call or Here()
    lines: list[Line] = []
    found = {}
    for run, groups in results.items():
        counts = counted(groups, metrics, call)
        found[run] = replace(counts, by_size={}, by_class={})
        whole = {name: {"": own.summary()} for name, own in counts.whole.items() if own.n}
        for group, summaries in (("all", whole), ("size", counts.by_size), ("class", counts.by_class)):
            for metric in metrics:
                for value, summary in summaries.get(metric, {}).items():
                    lines.append(Line(run, "", group, value, metric, summary))
    for run, base in compared:
        ours, theirs = pairing.compared((results[run], results[base]), (found[run], found[base]), metrics, call)
        for metric in metrics:
            difference = Summary.of(ours[metric].n, ours[metric].values - theirs[metric].values)
            lines.append(Line(run, base, "all", "", metric, difference))
    return lines


def _cell(summary: Summary | None, n: int, *, signed: bool = False) -> str:
    """Return a mean with its interval in percent, and the number of maps where it is not n.

    >>> _cell(Summary(65, 0.9538, 0.9, 1.0), 65), _cell(Summary(20, 0.5, 0.4, 0.6), 65)
    ('95.4 (90.0 to 100.0)', '50.0 (40.0 to 60.0; n = 20)')
    >>> _cell(Summary(1, 0.5, nan, nan), 1), _cell(Summary(1, 0.5, nan, nan), 2)
    ('50.0', '50.0 (n = 1)')
    """
    if summary is None or isnan(summary.mean):
        return ""
    values = (100 * value for value in (summary.mean, summary.low, summary.high))
    mean, low, high = (f"{value:+.1f}" if signed else f"{value:.1f}" for value in values)
    told = [*([] if isnan(summary.low) else [f"{low} to {high}"]), *([] if summary.n == n else [f"n = {summary.n}"])]
    return f"{mean} ({'; '.join(told)})" if told else mean


Table = list[list[str]]  # the first row is its header


def tables(lines: Sequence[Line], runs: Sequence[str], metrics: Sequence[str]) -> list[tuple[str, Table]]:
    """Return the tables for all maps, of differences, and for sizes, with titles: in percent, with 95 % intervals."""
    by_place = {(line.run, line.base, line.group, line.value, line.metric): line.summary for line in lines}
    found: list[tuple[str, Table]] = []

    def table(title: str, rows: list[tuple[str, str, str, str]], chosen: list[str]) -> None:
        cells = []
        chosen = [metric for metric in chosen if any((run, "", "all", "", metric) in by_place for run in runs)]
        for text, run, base, value in rows:
            group = "size" if value else "all"
            summaries = [by_place.get((run, base, group, value, metric)) for metric in chosen]
            if any(summaries):
                n = max(summary.n for summary in summaries if summary)
                cells.append([text, str(n), *(_cell(summary, n, signed=bool(base)) for summary in summaries)])
        if cells:
            header = ["run", "n", *(f"{metric} {arrow(metric)}" for metric in chosen)]
            found.append((title, [header, *cells]))

    pairs = dict.fromkeys((line.run, line.base) for line in lines if line.base)
    annotated = [metric for metric in metrics if SUITE[metric].compare]
    asked = [metric for metric in metrics if not SUITE[metric].compare]
    for title, chosen in (("Maps and annotations", annotated), ("What the model says", asked)):
        table(title, [(run, run, "", "") for run in runs], chosen)
        differences = [(f"{run} - {base}", run, base, "") for run, base in pairs]
        table(f"{title}: differences, on maps that both have", differences, chosen)
        by_size = [(f"{run}, {size} of the image", run, "", size) for size in SIZES for run in runs]
        table(f"{title}: by size of the target", by_size, chosen)
    return found


def arrow(metric: str) -> str:
    """Return which way a metric is better.

    >>> arrow("pxap"), arrow("deletion_rise")
    ('↑', '↓')
    """
    return "↑" if SUITE[metric].make().better == "higher" else "↓"


def as_markdown(lines: Sequence[Line], runs: Sequence[str], metrics: Sequence[str]) -> str:
    """Return the tables as Markdown."""
    return "\n".join(f"## {title}\n\n{markdown(rows)}\n" for title, rows in tables(lines, runs, metrics))


def as_csv(lines: Sequence[Line]) -> bytes:
    """Return a row a line: run, base, group, value, metric, n, mean, low, high; shares of 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", "base", "group", "value", "metric", "n", "mean", "low", "high"))
    for line in lines:
        writer.writerow((line.run, line.base, line.group, line.value, line.metric, *astuple(line.summary)))
    return text.getvalue().encode()


def as_records(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return lines as JSON takes them."""
    records = []
    for line in lines:
        record = asdict(line)
        numbers = record.pop("summary")
        records.append(record | {name: None if isinstance(x, float) and isnan(x) else x for name, x in numbers.items()})
    return records


def from_records(records: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Return the lines that `as_records` has written."""
    found = []
    for record in records:
        mean, low, high = (nan if record[name] is None else record[name] for name in ("mean", "low", "high"))
        place = {name: record[name] for name in ("run", "base", "group", "value", "metric")}
        found.append(Line(**place, summary=Summary(record["n"], mean, low, high)))
    return found
