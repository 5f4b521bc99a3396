"""The page of an evaluation, report.html: one file that opens from a disk, with all that it shows inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from math import isfinite
from string import Template

from sess_ray.pipeline.evaluate.pictures import TITLES, Picture
from sess_ray.pipeline.evaluate.report import Line, Table, arrow, tables
from sess_ray.pipeline.evaluate.verdict import Difference, differences, settings_that_differ, verdict

LABELS, WIDTH, ROW = 170, 400, 18  # of the plot, in units of its drawing


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page says.

    Attributes
    ----------
    title : str
    subtitle : str
        What was measured.
    notes : str
        How to read the tables.
    runs, metrics : sequence of str
    settings : dict of str to dict
        What the maps of each run are made with.
    lines : sequence of Line
    problems : sequence of (str, str, int)
        Run, problem, number of rows.
    ordered : str
        By what images are ordered.
    pictures : sequence of Picture
    """

    title: str
    subtitle: str
    notes: str
    runs: Sequence[str]
    metrics: Sequence[str]
    settings: dict[str, dict[str, object]]
    lines: Sequence[Line]
    problems: Sequence[tuple[str, str, int]]
    ordered: str
    pictures: Sequence[Picture]


def page(report: Report) -> str:
    """Return the page."""
    found = differences(report.lines)
    template = Template(files("sess_ray.pipeline.evaluate").joinpath("report.html").read_text("utf-8"))
    problems = [["run", "problem", "rows"], *([run, kind, str(count)] for run, kind, count in report.problems)]
    return template.substitute(
        title=escape(report.title),
        subtitle=escape(report.subtitle),
        verdict=_verdicts(found, report),
        settings=_settings(report),
        plot=_plot(found, report.lines, report.metrics),
        notes="".join(f"<p>{escape(line)}</p>" for line in report.notes.splitlines()),
        tables="".join(
            f"<h3>{escape(title)}</h3>{_table(rows)}"
            for title, rows in tables(report.lines, report.runs, report.metrics)
        ),
        pictures=_pictures(report),
        problems=f"<h2>Problems</h2><p>Each is a row of problems/.</p>{_table(problems)}" if report.problems else "",
    )


def _verdicts(found: Sequence[Difference], report: Report) -> str:
    pairs = dict.fromkeys((one.line.run, one.line.base) for one in found)
    if not pairs:
        return f"<p class=head>One run, {escape(', '.join(report.runs))}: there is nothing to compare it with.</p>"
    parts = []
    for run, base in pairs:
        own = [one for one in found if (one.line.run, one.line.base) == (run, base)]
        head, *rest = verdict(run, base, own)
        parts.append(f"<p class=head>{escape(head)}</p>" + "".join(f"<p>{escape(text)}</p>" for text in rest))
    return "".join(parts)


def _settings(report: Report) -> str:
    if len(report.runs) < 2:
        return ""
    rows = settings_that_differ(report.settings)
    said = _table(rows) if rows else "<p>No setting that makes a map differs.</p>"
    return f"<h2>What differs between the runs</h2>{said}"


def _table(rows: Table) -> str:
    head, *body = rows
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f"<div class=wide><table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table></div>"


def _plot(found: Sequence[Difference], lines: Sequence[Line], metrics: Sequence[str]) -> str:
    """Draw the differences, or where nothing is compared the means, with their intervals."""
    groups: dict[str, list[tuple[Line, str]]] = {}
    for one in found:
        groups.setdefault(f"{one.line.run} - {one.line.base}", []).append((one.line, one.side))
    if not groups:
        means = [line for line in lines if line.group == "all" and isfinite(line.summary.mean)]
        for line in sorted(means, key=lambda line: metrics.index(line.metric)):
            groups.setdefault(line.run, []).append((line, "even"))
    every = [line.summary for own in groups.values() for line, _ in own]
    ends = [100 * end for one in every for end in (one.mean, one.low, one.high) if isfinite(end)]
    if not ends:
        return ""
    least, most = min(0.0, *ends), max(0.0, *ends)
    unit = (WIDTH - LABELS - 10) / (most - least or 1)

    def across(share: float) -> float:
        return LABELS + (100 * share - least) * unit

    drawn, y = [], ROW
    for title, own in groups.items():
        drawn.append(f'<text x="0" y="{y}" class=group>{escape(title)}</text>')
        drawn += [_mark(line, side, across, y + place * ROW) for place, (line, side) in enumerate(own, 1)]
        y += (len(own) + 2) * ROW
    bottom = y - ROW
    axis = "".join(
        f'<text x="{across(end / 100):.1f}" y="{bottom + 6}" text-anchor="{anchor}">{end:+.0f}</text>'
        for end, anchor in ((least, "start"), (most, "end"))
        if end
    )
    zero = f'<line class=zero x1="{across(0):.1f}" x2="{across(0):.1f}" y1="4" y2="{bottom - 8}"/>'
    what = "Differences" if found else "Means"
    caption = f"{what} in points of percent with 95 % intervals. " + (
        "Filled circle: better by more than luck; square: worse by more than luck; open: may be luck." if found else ""
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {bottom + 10}" role="img" aria-label="{what} with intervals">'
        f"{zero}{''.join(drawn)}{axis}</svg><figcaption>{caption}</figcaption></figure>"
    )


def _mark(line: Line, side: str, across: Callable[[float], float], y: int) -> str:
    summary, middle = line.summary, y - 4
    x = across(summary.mean)
    low, high = (end if isfinite(end) else summary.mean for end in (summary.low, summary.high))
    point = (
        f'<rect x="{x - 4:.1f}" y="{middle - 4}" width="8" height="8"/>'
        if side == "worse"
        else f'<circle cx="{x:.1f}" cy="{middle}" r="4"/>'
    )
    return (
        f'<g class="{side}"><text x="{LABELS - 8}" y="{y}" text-anchor="end">{escape(line.metric)} '
        f'{arrow(line.metric)}</text><line x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{middle}" '
        f'y2="{middle}"/>{point}</g>'
    )


def _pictures(report: Report) -> str:
    if not report.pictures:
        return ""
    by_title = {title: [one for one in report.pictures if one.title == title] for title in TITLES}
    cards = "".join(
        f"<h3>{title}</h3><div class=cards>{''.join(map(_card, own))}</div>" for title, own in by_title.items() if own
    )
    return f"<h2>Images</h2><p>{escape(report.ordered)}</p>{cards}"


def _card(picture: Picture) -> str:
    def shown(name: str, uri: str) -> str:
        value = picture.values.get(name)
        caption = name if value is None else f"{name}: {100 * value:.1f}"
        alt = escape(f"{picture.name}: {name}")
        return f'<figure><img src="{uri}" alt="{alt}"><figcaption>{escape(caption)}</figcaption></figure>'

    strip = "".join(shown(*one) for one in picture.thumbnails.items()) or "<p>The image cannot be read.</p>"
    head = f"<h4>{escape(picture.label)}</h4><p>{escape(picture.name)}</p>"
    return f"<article>{head}<div class=strip>{strip}</div></article>"
