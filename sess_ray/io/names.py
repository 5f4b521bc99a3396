"""Class names, and prompts, in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.small import read_text


def read_class_names(path: str, what: str = "class names") -> list[str]:
    """Read names in the order of their indices.

    A line holds a name; or columns between tabs, of which the last is the name. If the first of two columns is an
    index, lines have any order; of more columns, if it numbers the lines from 0 on.

    Raises
    ------
    SessError
        If a line between others is empty, lines have unlike columns, or an index is missing or there twice.
    """
    place = f"{what} {public(path)!r}"
    try:
        text = read_text(path, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SessError(f"{place} are no text in UTF-8: write one a line") from error
    lines = [line.strip(" ") for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")]
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines]
    names = [row[-1] for row in rows]
    if "" in names:
        raise SessError(f"{place}: line {names.index('') + 1} is empty, and lines count: give each class a name")
    unlike = next((number for number, row in enumerate(rows, 1) if len(row) != len(rows[0])), None)
    if unlike:
        raise SessError(
            f"{place}: line {unlike} has {len(rows[unlike - 1])} columns between tabs, and line 1 has {len(rows[0])}:"
            " write an index, a tab and a name in each, or a name"
        )
    if len(rows[0]) > 1 and all(name.isdecimal() for name in names) and not all(row[0].isdecimal() for row in rows):
        raise SessError(f"{place}: the last column, where names are, has numbers alone: put the names there")
    indexed = len(rows[0]) > 1 and all(row[0].isdecimal() for row in rows)
    if not indexed or (len(rows[0]) > 2 and {int(row[0]) for row in rows} != set(range(len(rows)))):
        return names
    found = dict(zip((int(row[0]) for row in rows), names, strict=True))
    absent = [index for index in range(len(rows)) if index not in found]
    if absent:
        raise SessError(f"{place}: {len(rows)} lines, and none has the index {absent[0]}: number them from 0 on")
    return [found[index] for index in range(len(rows))]


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
