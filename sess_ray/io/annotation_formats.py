"""Reading annotations in the formats that people have them in; the format is told from the content."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.access import one_line, open_filesystem, patiently, public, shown
from sess_ray.errors import SessError
from sess_ray.io.annotation_coco import is_coco, read_coco
from sess_ray.io.annotation_values import add_object, first_of, image_of, listed, text_of
from sess_ray.io.annotation_xml import Claims, is_xml, read_xml
from sess_ray.io.annotations import Annotation, Annotations
from sess_ray.io.columns import ID_COLUMNS
from sess_ray.io.reading import read_items
from sess_ray.small import as_text, marked, read_text

FORMATS = (
    "COCO instances JSON",
    "a folder of Pascal VOC or ImageNet XML",
    "ImageNet's LOC_*_solution.csv",
    "a JSON list of {file, class_index, boxes}",
    "Parquet, JSON Lines or CSV with image_id and objects, or with image_id, label, x0, y0, x1, y1",
)
NAME_COLUMNS = (*ID_COLUMNS, "file", "file_name")
CORNERS = ("x0", "y0", "x1", "y1")
ROW_LABELS = ("label", "class_index", "wnid")  # the index first: every model knows it
XML_BATCH = 1000  # files that are read together


def read_annotations(url: str) -> Annotations:
    """Read the annotations of a dataset; the format is told from the content.

    Parameters
    ----------
    url : str
        A path or any URL that fsspec opens, of

        - COCO instances JSON; regions of a crowd are objects of their class too;
        - a folder of XML, searched with all below it, or a folder that holds it as ``Annotations``, or one XML file.
          Pascal VOC's, whose pixels count from 1; ImageNet's, where the database is named ImageNet or ILSVRC, from 0;
        - ImageNet's ``LOC_train_solution.csv`` or ``LOC_val_solution.csv``, pixels counted from 0;
        - a JSON list of {file, class_index or wnid, width, height, boxes}, where boxes may be absent;
        - Parquet or JSON Lines with ``image_id`` (or ``id``, ``file``), optionally ``width`` and ``height``, and
          ``objects``, a list of {label, box, segments}; or, also as CSV or TSV, a row for each object with
          ``image_id``, ``label``, ``x0``, ``y0``, ``x1``, ``y1`` (upper ends exclusive).

    Returns
    -------
    Annotations
        What is malformed in it, such as an object without a box, is listed in ``problems``.

    Raises
    ------
    SessError
        If there is no such place, it cannot be read, or the format is not known.
    """
    found = Annotations(source=public(url))
    try:
        filesystem, path = open_filesystem(url)
        if patiently(filesystem.isdir, path):
            _read_folder(found, filesystem, path)
        else:
            _read_file(found, read_text(url, "annotations"), posixpath.basename(path))
    except SessError:
        raise
    except Exception as error:
        raise SessError(f"cannot read {found.source}: {one_line(error)}") from shown(error)
    return found


def _decoded(content: bytes, url: str) -> str:
    if b"\0" in content and not marked(content):
        raise _unknown_format(url, f"bytes that are no text, beginning {content[:8]!r}")
    try:
        return as_text(content)
    except UnicodeDecodeError as error:
        byte = content[error.start : error.start + 1]
        raise SessError(f"{url} is no UTF-8, as {byte!r} at byte {error.start} shows: save it as UTF-8") from error


def _unknown_format(url: str, what: str) -> SessError:
    return SessError(f"no annotations in a known format in {url}: found {what}; known are {'; '.join(FORMATS)}")


def _read_folder(found: Annotations, filesystem: fsspec.AbstractFileSystem, path: str) -> None:
    path = path.rstrip("/")
    root = f"{path}/Annotations" if patiently(filesystem.isdir, f"{path}/Annotations") else path
    paths = sorted(patiently(filesystem.find, root))
    documents = [place for place in paths if place.lower().endswith(".xml") and _visible(place)]
    if not documents:
        names = ", ".join(place[len(root) + 1 :] for place in paths[:3])
        raise _unknown_format(found.source, f"a folder without XML, with {names or 'nothing in it'}")
    claims: Claims = {}
    for first in range(0, len(documents), XML_BATCH):
        batch = documents[first : first + XML_BATCH]
        contents = read_items([filesystem.unstrip_protocol(place) for place in batch])
        for place, content in zip(batch, contents, strict=True):
            name = place[len(root) + 1 :]
            if isinstance(content, Exception):
                found.problems.append((name, f"cannot be read: {one_line(content)}"))
            else:
                read_xml(found, content, name, claims)


def _visible(path: str) -> bool:
    return not posixpath.basename(path).startswith(".")


def _read_file(found: Annotations, content: bytes, name: str) -> None:
    if content.startswith(b"PAR1"):
        _read_rows(found, _numbered(pq.read_table(pa.BufferReader(content)).to_pylist()))
    elif is_xml(content):
        read_xml(found, content, name, {})
    else:
        _read_text(found, _decoded(content, found.source), name)


def _read_text(found: Annotations, text: str, name: str) -> None:
    if not text.strip():
        raise _unknown_format(found.source, "an empty file")
    if text.lstrip()[0] in "{[":
        _read_json(found, text, name)
    else:
        _read_table(found, text)


def _read_json(found: Annotations, text: str, name: str) -> None:
    by_lines = name.lower().endswith((".jsonl", ".ndjson"))
    try:
        document = json.loads(text)
    except ValueError as error:
        if by_lines or _is_object(text.lstrip().split("\n", 1)[0]):
            _read_rows(found, _json_lines(found, text))
            return
        raise SessError(f"{found.source} is broken JSON: {error}") from error
    if isinstance(document, list):
        _read_rows(found, _numbered(document))
    elif is_coco(document):
        read_coco(found, document)
    elif by_lines or _is_row(document):
        _read_rows(found, [("line 1", document)])
    else:
        raise _unknown_format(found.source, f"a JSON object with {listed(document)}")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _json_lines(found: Annotations, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                found.problems.append((f"line {number}", f"broken JSON: {error}"))


def _numbered(rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _read_table(found: Annotations, text: str) -> None:
    header = text.split("\n", 1)[0]
    delimiter = "\t" if "\t" in header else ";" if ";" in header and "," not in header else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [_known(column.strip()) for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    if columns == ["ImageId", "PredictionString"]:
        for row in reader:
            image = image_of(found, str(row["ImageId"]), {})
            words = (row["PredictionString"] or "").split()
            for first in range(0, len(words), 5):
                add_object(found, image, words[first], words[first + 1 : first + 5], "imagenet")
    elif {*CORNERS, "label"} <= set(columns) and first_of(columns, NAME_COLUMNS):
        _read_rows(found, _numbered(reader))
    elif len(columns) > 1:
        raise _unknown_format(found.source, f"a table with the columns {listed(columns)}")
    else:
        raise _unknown_format(found.source, f"text that begins {header[:40].strip()!r}")


def _known(column: str) -> str:
    """Return the name of a column, in lower case where it is one of ours."""
    return column.lower() if column.lower() in (*CORNERS, *NAME_COLUMNS, "label") else column


def _read_rows(found: Annotations, rows: Iterable[tuple[str, Any]]) -> None:
    """Read rows of images or of objects, each with its place in the file."""
    known = False
    first: Any = None
    for place, row in rows:
        first = row if first is None else first
        if not isinstance(row, dict):
            found.problems.append((place, f"is no object: {str(row)[:40]}"))
            continue
        known = known or _is_row(row)
        name = next(filter(None, (text_of(row.get(column)) for column in NAME_COLUMNS)), None)
        if name is None:
            found.problems.append((place, f"has no {NAME_COLUMNS[0]} ({', '.join(NAME_COLUMNS[1:])})"))
            continue
        image = image_of(found, name, row)
        for label, box, segments in _row_objects(found, image, row):
            add_object(found, image, label, box, "edges", segments)
    if not known:
        what = f"with {listed(first)}" if isinstance(first, dict) else f"such as {str(first)[:40]}"
        raise _unknown_format(found.source, f"rows {what}" if first is not None else "no rows")


def _is_row(row: dict[str, Any]) -> bool:
    contents = ({"objects"}, {"boxes"}, set(CORNERS), {"class_index"}, {"wnid"})
    return first_of(row, NAME_COLUMNS) is not None and any(columns <= row.keys() for columns in contents)


def _row_objects(found: Annotations, image: Annotation, row: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield label, box and segments as a row has them: a list of objects, boxes of one class, or one object."""
    label = next((row[column] for column in ROW_LABELS if row.get(column) is not None), None)
    corners = [row.get(column) for column in CORNERS]
    several = row.get("objects") if row.get("objects") is not None else row.get("boxes")
    if several is not None and not isinstance(several, list):
        found.problems.append((image.image_id, f"objects are no list: {str(several)[:40]}"))
    elif row.get("objects") is not None:
        for entry in several or ():
            given = entry if isinstance(entry, dict) else {}
            yield given.get("label"), given.get("box"), given.get("segments")
    elif several is not None:
        yield from ((label, box, None) for box in several)
    elif any(text_of(corner) for corner in corners) or (set(CORNERS) <= row.keys() and text_of(label)):
        yield label, corners, row.get("segments")
