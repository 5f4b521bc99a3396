"""The figures of a benchmark as tables and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sess_ray.errors import SessError
from sess_ray.tables import markdown

Result = dict[str, Any]


Columns = tuple[tuple[str, str, str], ...]  # header, key, format

TABLES: dict[str, Columns] = {
    "core": (
        ("precision", "precision", ""),
        ("batch", "batch_size", ""),
        ("engine", "engine", ""),
        ("ms / patch", "ms_per_window", ".2f"),
        ("images/s", "images_per_second", ".3f"),
        ("windows/s", "windows_per_second", ".1f"),
        ("/ matrix rate", "matrix_share", ".2f"),
        ("/ floor", "ratio", ".3f"),
        ("of medians", "ratio_of_medians", ".3f"),
    ),
    "stages": (("stage", "stage", ""), ("ms an image", "ms", ".1f"), ("share", "share", ".1%")),
    "jobs": (
        ("workers", "actors", ""),
        ("images", "images", ""),
        ("s to first rows", "seconds_to_first_rows", ".1f"),
        ("images/s", "images_per_second", ".3f"),
        ("windows/s", "windows_per_second", ".1f"),
        ("/ floor", "ratio", ".3f"),
        ("busy", "busy_share", ".1%"),
        ("peak MiB", "actor_peak_mib", ".0f"),
    ),
    "feed": (("stage", "stage", ""), ("ms of a core an image", "ms", ".2f"), ("cores", "cores", ".2f")),
    "methods": (
        ("method", "method", ""),
        ("forwards", "forwards", ".1f"),
        ("backwards", "backwards", ".1f"),
        ("time / floor", "ratio", ".2f"),
    ),
}


def tables(result: Result) -> str:
    """Return what was measured, as Markdown."""
    parts = [f"{result['config']['model']}, {result['config']['method']}, {result['machine']}"]
    for part, columns in TABLES.items():
        if part in result:
            cells = [tuple(format(row[key], form) for _, key, form in columns) for row in result[part]]
            parts.append(markdown([tuple(header for header, _, _ in columns), *cells]))
    return "\n\n".join(parts)


def compare(first: str, second: str) -> str:
    """Return a table of all figures of two files of results, and of their ratios."""
    found = [dict(_figures(_read(path))) for path in (first, second)]
    rows = [
        (name, f"{one:.4g}", f"{found[1][name]:.4g}", f"{found[1][name] / one:.3f}" if one else "")
        for name, one in found[0].items()
        if name in found[1]
    ]
    if not rows:
        raise SessError(f"{first} and {second} have no figure in common")
    return markdown([("", Path(first).stem, Path(second).stem, "ratio"), *rows])


def _read(path: str) -> Result:
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise SessError(f"cannot read the benchmark {path!r}: {error}") from error


def _figures(result: Result) -> Iterator[tuple[str, float]]:
    for part, columns in TABLES.items():
        names = [key for _, key, form in columns if not form]
        for row in result.get(part, []):
            label = ", ".join(str(row[key]) for key in names)
            known = [(header, key) for header, key, form in columns if form and key in row]  # older files have less
            yield from ((f"{part}: {label}: {header}", row[key]) for header, key in known)


def store(result: Result, path: str) -> None:
    """Write the figures to a file, and where there is something to see, a picture of the same name."""
    with open(path, "w") as file:
        json.dump(result, file, indent=2)
    if "core" in result:
        _draw(result, str(Path(path).with_suffix(".png")))


def _draw(result: Result, path: str) -> None:
    """Draw the engine's time over the floor's, and the stages of an image."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no picture: it needs matplotlib (sess-ray[plot])")
        return
    figure, (ratios, stages) = pyplot.subplots(1, 2, figsize=(12, 4), width_ratios=[3, 2], layout="constrained")
    rows = [row for row in result["core"] if row["engine"] != "without SESS"][::-1]
    labels = [f"{row['engine']}, {row['precision']}, batch {row['batch_size']}" for row in rows]
    bars = ratios.barh(labels, [row["ratio"] for row in rows], color="#c0504d")
    ratios.bar_label(bars, fmt="%.2f", padding=3)
    ratios.axvline(1, color="black", linewidth=0.8)
    ratios.set_xlabel("time over that of a plain loop of forward passes")
    rows = result["stages"][::-1]
    bars = stages.barh([row["stage"] for row in rows], [row["ms"] for row in rows], color="#4f81bd")
    stages.bar_label(bars, fmt="%.1f", padding=3)
    stages.set_xscale("log")
    stages.set_xlabel("ms an image, one stage after the other")
    figure.suptitle(f"{result['config']['model']}, {result['config']['method']}: {result['machine']}")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
