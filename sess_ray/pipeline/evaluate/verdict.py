"""The verdict of an evaluation in words: what differs between runs, which is better, and whether by more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from sess_ray.metrics.suite import SUITE
from sess_ray.pipeline.evaluate.report import Line
from sess_ray.pipeline.explain.resume import FREE

Side = Literal["better", "worse", "even"]
FEW = 30  # maps, below which bootstrap intervals are too narrow to be trusted
# What a change of contrast alone moves, such as squaring all maps: no verdict is made of it.
CONTRAST = ("energy_pointing_game", "average_drop", "average_increase")


@dataclass(frozen=True)
class Difference:
    """A metric of a run, compared with another.

    Attributes
    ----------
    line : Line
    side : {"better", "worse", "even"}
        Even where the interval holds 0, the difference may be luck; and where there is no interval.
    """

    line: Line
    side: Side

    @property
    def words(self) -> str:
        """The metric and its difference in points.

        >>> from sess_ray.metrics.metric import Summary
        >>> line = Line("sess", "base", "all", "", "pxap", Summary(245, 0.031, 0.012, 0.052))
        >>> differences([line])[0].side, differences([line])[0].words
        ('better', 'pxap +3.1 (+1.2 to +5.2)')
        """
        mean, low, high = (100 * value for value in (self.line.summary.mean, *_interval(self.line)))
        interval = f" ({low:+.1f} to {high:+.1f})" if self.certain else ""
        return f"{self.line.metric} {mean:+.1f}{interval}"

    @property
    def certain(self) -> bool:
        """Whether there is an interval: of the maps of one image there is none."""
        return isfinite(self.line.summary.low)


def _interval(line: Line) -> tuple[float, float]:
    return line.summary.low, line.summary.high


def differences(lines: Sequence[Line]) -> list[Difference]:
    """Return the comparisons of runs over all maps, in the order of the lines."""
    found = []
    for line in lines:
        low, high = _interval(line)
        if line.base and line.group == "all" and isfinite(line.summary.mean):
            side: Side = "even"
            if isfinite(low) and not low <= 0 <= high:
                side = "better" if (low > 0) == (SUITE[line.metric].make().better == "higher") else "worse"
            found.append(Difference(line, side))
    return found


def verdict(run: str, base: str, found: Sequence[Difference]) -> list[str]:
    """Say in sentences how a run does against its base.

    Parameters
    ----------
    run, base : str
    found : sequence of Difference
        Differences between these two.

    Returns
    -------
    list of str
        The first is the verdict, over the metrics that contrast alone cannot move.
    """
    counted = [one for one in found if one.line.metric not in CONTRAST]
    even = [one for one in counted if one.side == "even"]
    n = max((one.line.summary.n for one in found), default=0)
    told = [_head(run, base, counted)]
    for text, own in (
        ("Better by more than luck", [one for one in counted if one.side == "better"]),
        ("Worse by more than luck", [one for one in counted if one.side == "worse"]),
        ("May be luck, the interval holds 0", [one for one in even if one.certain]),
        ("May be luck, one image has no interval", [one for one in even if not one.certain]),
        ("Without a say, because contrast alone moves them", [one for one in found if one.line.metric in CONTRAST]),
    ):
        if own:
            told.append(f"{text}: {', '.join(one.words for one in own)}.")
    told.append(f"In points of percent, with 95 % intervals, over up to {n} maps that both have.")
    if n < FEW:
        told.append(f"So few maps vouch for little: the intervals themselves are uncertain below about {FEW}.")
    return told


def _head(run: str, base: str, counted: Sequence[Difference]) -> str:
    sides = {one.side for one in counted}
    if not counted:
        return f"Nothing decides between {run} and {base}: no metric that has a say was measured on maps of both."
    if not any(one.certain for one in counted):
        return f"Nothing decides between {run} and {base}: maps of one image have no intervals."
    if sides == {"even"}:
        return f"{run} and {base} cannot be told apart: no difference is more than luck."
    if "worse" not in sides:
        return f"{run} is better than {base}."
    if "better" not in sides:
        return f"{run} is worse than {base}."
    return f"{run} is better than {base} by some metrics and worse by others."


def settings_that_differ(settings: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return a table of what the runs were made with where it is not the same for all; nothing where it is.

    >>> settings_that_differ({"base": {"num_scales": 0, "seed": 0}, "sess": {"num_scales": 12, "seed": 0}})
    [['setting', 'base', 'sess'], ['num_scales', '0', '12']]
    """
    known = {name: own for name, own in settings.items() if own}
    names = dict.fromkeys(key for own in known.values() for key in own if key not in FREE)
    rows = [[key, *(_written(own.get(key)) for own in known.values())] for key in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return [["setting", *known], *rows] if rows else []


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
