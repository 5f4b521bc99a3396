"""Class names, and prompts, in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.small import read_small


def read_class_names(path: str, what: str = "class names") -> list[str]:
    """Read class names: one a line, or the last column of a table separated by tabs."""
    try:
        text = read_small(path, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SessError(f"{what} {public(path)!r} are no text: write one a line") from error
    return [line.split("\t")[-1].strip() for line in text.splitlines() if line.strip()]


def prompts_of(settings: Mapping[str, Any]) -> list[str] | None:
    """Return the prompts of a zero-shot model that settings name; None where they name none.

    Parameters
    ----------
    settings : mapping
        ``prompts``, a file with one a line; without it, ``targets`` that semicolons separate.

    Examples
    --------
    >>> prompts_of({"prompts": None, "targets": "a dog; a cat"}), prompts_of({"targets": "top1"})
    (['a dog', 'a cat'], None)
    """
    if settings.get("prompts"):
        return read_class_names(settings["prompts"], "prompts")
    targets = settings.get("targets") or ""
    return [prompt.strip() for prompt in targets.split(";") if prompt.strip()] if ";" in targets else None
