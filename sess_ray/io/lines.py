"""Rows of manifests that are text: CSV and JSON Lines."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import fsspec

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.io.columns import URI_COLUMNS, Columns, Row, Table, columns_of, no_labels
from sess_ray.signing import file_of
from sess_ray.small import marked

SEPARATORS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*')  # which Excel writes and reads in front of the header


def has_extension(path: str, *extensions: str) -> bool:
    """Say whether a path, or the path of a URL, ends so, in any case."""
    return file_of(path).lower().endswith(extensions)


@dataclass
class Lines:
    """CSV and JSON Lines."""

    filesystem: fsspec.AbstractFileSystem
    path: str
    table: Table
    seen: dict[str, None] = field(default_factory=dict)  # columns, in their order

    def rows(self) -> Iterator[Row]:
        with self.filesystem.open(self.path, "rb") as handle:
            encoding = marked(handle.read(4)) or "utf-8"
        # Opened again: a file of a web server need not go back. A byte that is no text costs its own row: a path that
        # holds it can be opened all the same.
        reading = partial(io.TextIOWrapper, encoding=encoding, errors="surrogateescape", newline="")
        with self.filesystem.open(self.path, "rb") as handle, reading(handle) as lines:
            yield from self._separated(lines) if has_extension(self.path, ".csv", ".tsv") else self._json(lines)

    def check(self) -> None:
        """Raise `SessError` if no row has said where an image is."""
        known = URI_COLUMNS if self.table.wanted is None else (self.table.wanted,)
        plain = self.seen if self.table.wanted else [name.strip().lower() for name in self.seen]
        if self.table.label is not None and self.table.label not in self.seen:
            raise SessError(f"manifest {public(self.table.uri)} {no_labels(self.table.label, self.seen)}")
        if not any(name in known for name in plain):
            more = f" (or {', '.join(known[1:])})" if known[1:] else ""
            listed = ", ".join(self.seen) or "none"
            raise SessError(f"manifest {public(self.table.uri)} needs a column {known[0]!r}{more}; it has: {listed}")

    def _separated(self, lines: Iterable[str]) -> Iterator[Row]:
        lines = iter(lines)
        head = next((line for line in lines if line.strip()), "")
        told = _SEP_LINE.fullmatch(head)
        head = next(lines, "") if told else head
        usual = "\t" if has_extension(self.path, ".tsv") else ","
        separators = told[1] if told else sorted(SEPARATORS, key=lambda one: one != usual)
        headers = [(one, _cells([head], one)) for one in separators]
        separator, names = next((one for one in headers if self._columns(one[1]).uri), headers[0])
        self.seen = dict.fromkeys(name for name in names if name)
        self.check()
        self.table.columns = self._columns(names)
        place = names.index(str(self.table.columns.uri))
        for cells in self._rows(lines, separator):
            if "\n" in "".join(cells[place : place + 1]):
                yield f"{names[place]} goes over several lines: a quote is left open"
            elif any(cell.strip() for cell in cells[len(names) :]):
                yield f"it has {len(cells)} cells, the header {len(names)}: quote what holds a {separator!r}"
            elif any(cell.strip() for cell in cells):
                yield dict(zip(names, cells, strict=False))

    def _rows(self, lines: Iterable[str], separator: str) -> Iterator[list[str]]:
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        try:
            yield from reader
        except csv.Error as error:
            where = f"line {reader.line_num + 1} of {public(self.table.uri)}"
            raise SessError(f"{where} is no row ({error}): is a quote left open?") from error

    def _columns(self, names: Iterable[str]) -> Columns:
        return columns_here(tuple(name for name in names if name), self.table.uri, self.table.wanted, self.table.label)

    def _json(self, lines: Iterable[str]) -> Iterator[Row]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SessError(f"line {number} of {public(self.table.uri)} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise SessError(f"line {number} of {public(self.table.uri)} is no JSON object: write one a line")
            self.seen.update(dict.fromkeys(row))
            yield row


@lru_cache(maxsize=64)
def columns_here(names: tuple[str, ...], uri: str, wanted: str | None, label: str | None = None) -> Columns:
    """Return the columns of a table, or of a row that has its own."""
    try:
        found = columns_of(names)
    except SessError as error:
        raise SessError(f"manifest {public(uri)} {error}") from None
    meant = {"uri": wanted, "label": label}
    told = {kind: name if name in names else None for kind, name in meant.items() if name is not None}
    return replace(found, **told)


def _cells(lines: Iterable[str], separator: str) -> list[str]:
    """Return the cells of the first line."""
    return [cell.strip() for cell in next(csv.reader(lines, delimiter=separator, skipinitialspace=True), [])]
