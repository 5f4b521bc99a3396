"""Class names in a file."""

from __future__ import annotations

from sess_ray.errors import SessError
from sess_ray.io.access import one_line, open_filesystem, patiently, public


def read_class_names(path: str) -> list[str]:
    """Read class names: one a line, or the last column of a table separated by tabs."""
    try:
        filesystem, place = open_filesystem(path)
        text = patiently(filesystem.cat_file, place).decode()
    except Exception as error:
        raise SessError(f"cannot read class names {public(path)!r}: {one_line(error)}") from error
    return [line.split("\t")[-1].strip() for line in text.splitlines() if line.strip()]
