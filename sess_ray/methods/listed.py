"""The table of all base methods, as the command line prints it."""

from __future__ import annotations

from sess_ray.methods.registry import get, names


def table() -> list[tuple[str, ...]]:
    """Return a row for each method, under a header: name, family, passes, options with their defaults, paper."""
    header = ("method", "family", "passes for each kept patch", "options", "paper")
    rows = [
        (
            method.name,
            method.family,
            method.passes,
            ", ".join(f"{name}={_written(value)}" for name, value in method.options.items()),
            method.paper,
        )
        for method in map(get, names())
    ]
    return [header, *rows]


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
