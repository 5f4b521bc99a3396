"""Tables for people: the same text on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with aligned columns; the first row is its header.

    >>> print(markdown([("name", "size"), ("vgg16", 224)]))
    | name  | size |
    |-------|------|
    | vgg16 | 224  |
    """
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(texts[0]), rule, *map(line, texts[1:])])
