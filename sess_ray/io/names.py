"""Class names in a file."""

from __future__ import annotations

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.small import read_small


def read_class_names(path: str) -> list[str]:
    """Read class names: one a line, or the last column of a table separated by tabs."""
    try:
        text = read_small(path, "class names").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SessError(f"class names {public(path)!r} are no text: write one name a line") from error
    return [line.split("\t")[-1].strip() for line in text.splitlines() if line.strip()]
