"""Where the objects are: boxes, segments and labels of images, in the formats that people have them in.

Every format becomes the same two dataclasses. All boxes are in pixels of the image, their upper ends exclusive: a box
that covers the whole of a 500 x 375 image is (0, 0, 500, 375).
"""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.errors import SessError, unknown
from sess_ray.io.inputs import ID_COLUMNS, IMAGE_EXTENSIONS, open_filesystem, read_items

Box = tuple[float, float, float, float]
Segments = list[list[float]] | dict[str, Any]
Kind = Literal["boxes", "segments"]

FORMATS = (
    "COCO instances JSON",
    "a folder of Pascal VOC or ImageNet XML",
    "ImageNet's LOC_*_solution.csv",
    "a JSON list of {file, class_index, boxes}",
    "Parquet, JSON Lines or CSV with image_id and objects, or with image_id, label, x0, y0, x1, y1",
)

# How a format writes a box. Pascal VOC counts pixels from 1. ImageNet took over VOC's XML but counts from 0: in images
# of 500 pixels its boxes go from 0 to 499, in the XML as in the csv. Both include the last pixel.
CONVENTIONS: dict[str, Callable[[float, float, float, float], Box]] = {
    "edges": lambda x0, y0, x1, y1: (x0, y0, x1, y1),
    "coco": lambda x, y, width, height: (x, y, x + width, y + height),
    "voc": lambda x0, y0, x1, y1: (x0 - 1, y0 - 1, x1, y1),
    "imagenet": lambda x0, y0, x1, y1: (x0, y0, x1 + 1, y1 + 1),
}

NAME_COLUMNS = (*ID_COLUMNS, "file", "file_name")
CORNERS = ("x0", "y0", "x1", "y1")
XML_CORNERS = ("xmin", "ymin", "xmax", "ymax")
ROW_LABELS = ("label", "class_index", "wnid")  # the index first: every model knows it
XML_BATCH = 1000  # files that are read together
SHORTEST_POLYGON = 6  # three points; pycocotools takes four numbers for a box
FARTHEST_POINT = 1e6  # pixels; pycocotools walks along every edge, in integers


@dataclass(frozen=True, slots=True)
class Object:
    """One thing in an image.

    Attributes
    ----------
    label : str
        Its class as the file names it: a COCO category, a VOC name, a WordNet id, or a class's index or name.
    box : tuple of 4 floats
        x0, y0, x1, y1 in pixels; x1 and y1 exclusive.
    segments : list of lists of float, or dict, or None
        Polygons x, y, x, y, ... in pixels, or a run-length code of "size" [height, width] and "counts"
        (list, or compressed str or bytes).
    """

    label: str
    box: Box
    segments: Segments | None = None


@dataclass(slots=True)
class Annotation:
    """What is known of one image.

    Attributes
    ----------
    image_id : str
        Its file name or path as the file says. Of XML: the XML's folder below the one that was read, and the name
        inside.
    objects : list of Object
        May be empty.
    width, height : int or None
        In pixels, where the file says.
    """

    image_id: str
    objects: list[Object] = field(default_factory=list)
    width: int | None = None
    height: int | None = None


@dataclass
class Annotations:
    """The annotations of a dataset.

    Attributes
    ----------
    by_id : dict of str to Annotation
        By `Annotation.image_id`. Not to be changed after the first `find`.
    problems : list of (str, str)
        Image (or the place in the file) and what is wrong, for each entry that was left out.
    source : str
        The URL they were read from.
    """

    by_id: dict[str, Annotation] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    source: str = ""

    def find(self, image_id: str) -> Annotation | None:
        """Return the annotation of an image.

        Parameters
        ----------
        image_id : str
            Its path, however much of it is known.

        Returns
        -------
        Annotation or None
            The one of exactly this id; else the one whose path ends this id; else the only one of this file name,
            whatever the folders and the extensions. Where several images have that name, the one whose path,
            without extension, ends this id, or the only one that ends with it.
        """
        # Once names are ambiguous, a wrong folder must not match: annotations of another image are worse than none.
        found = next((path for path in _suffixes(image_id) if path in self.by_id), None)
        if found is None:
            bare = _bare(image_id)
            found = self._endings.get(posixpath.basename(bare)) or self._endings.get(bare)
            found = found or next(filter(None, (self._paths.get(path) for path in _suffixes(bare))), None)
        return None if found is None else self.by_id[found]

    def labels(self) -> list[str]:
        """Return all labels, sorted."""
        return sorted({entry.label for annotation in self.by_id.values() for entry in annotation.objects})

    @cached_property
    def _paths(self) -> dict[str, str | None]:
        """Paths without extension to ids; None where there are several."""
        return _unique((_bare(image_id), image_id) for image_id in self.by_id)

    @cached_property
    def _endings(self) -> dict[str, str | None]:
        """All that such paths may end in to ids; None where there are several."""
        return _unique((ending, image_id) for image_id in self.by_id for ending in _suffixes(_bare(image_id)))


@dataclass(frozen=True)
class ClassMap:
    """Which classes of a model a label means.

    Attributes
    ----------
    entries : dict of str to tuple of int or str, optional
        Labels to indices or names of classes; by default every label is the name or the index of a class.
    source : str
        The URL it was read from.
    """

    entries: Mapping[str, tuple[int | str, ...]] | None = None
    source: str = ""

    @classmethod
    def read(cls, url: str) -> ClassMap:
        """Read a map.

        Parameters
        ----------
        url : str
            At a path or any URL that fsspec opens: a JSON object {label: index or name, or a list of them}, or a CSV
            or TSV with the columns label and index (or name), a row for each pair.

        Raises
        ------
        SessError
            If it can not be read, or is something else.
        """
        text = _decoded(_content(url, "class map"), url)
        if text.lstrip().startswith("{"):
            try:
                pairs = list(json.loads(text).items())
            except ValueError as error:
                raise SessError(f"class map {url} is broken JSON: {error}") from error
        else:
            pairs = _table_pairs(text)
        entries: dict[str, tuple[int | str, ...]] = {}
        for label, value in pairs:
            classes = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, int | str) and not isinstance(entry, bool) for entry in classes):
                raise SessError(f"class map {url}: {label!r} needs an index, a name or a list of them, not {value!r}")
            entries[label] = (*entries.get(label, ()), *classes)
        if not entries:
            raise SessError(f"class map {url} is empty: write a JSON object {{label: index}}, or columns label,index")
        return cls(entries, url)

    def classes(self, label: str, resolve: Callable[[str], int]) -> tuple[int, ...]:
        """Return the indices of the classes that a label means; none where it means none.

        Parameters
        ----------
        label : str
        resolve : callable
            The model's `class_index`: an index or a name to the index; raises `SessError` for what it does not know.

        Raises
        ------
        SessError
            If the map names a class that the model does not have.
        """
        if self.entries is None:
            try:
                return (resolve(label),)
            except SessError:
                return ()
        try:
            return tuple(dict.fromkeys(resolve(str(entry)) for entry in self.entries.get(label, ())))
        except SessError as error:
            raise SessError(f"class map {self.source}: label {label!r}: {error}") from error


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
        If there is no such place, it can not be read, or the format is not known.
    """
    found = Annotations(source=url)
    filesystem, path = open_filesystem(url)
    try:
        if filesystem.isdir(path):
            _read_folder(found, filesystem, path)
        else:
            _read_file(found, _content(url, "annotations"), posixpath.basename(path))
    except SessError:
        raise
    except Exception as error:
        raise SessError(f"cannot read {url}: {type(error).__name__}: {error}".split("\n")[0]) from error
    return found


def region(objects: Iterable[Object], height: int, width: int, kind: Kind) -> np.ndarray:
    """Return which pixels objects cover.

    Parameters
    ----------
    objects : iterable of Object
    height, width : int
        Of the image, in pixels.
    kind : {"boxes", "segments"}
        A box covers the pixels whose centres lie in it. Segments are drawn by pycocotools; an object without them
        counts by its box.

    Returns
    -------
    ndarray, (height, width) bool

    Raises
    ------
    SessError
        If a segment is no valid code or one of an image of another size, or pycocotools is missing.
    """
    if kind not in ("boxes", "segments"):
        raise unknown("kind of region", kind, ("boxes", "segments"))
    covered = np.zeros((height, width), bool)
    for entry in objects:
        if kind == "segments" and entry.segments:
            covered |= _segment_mask(entry, height, width)
        else:
            # The first centre x + 0.5 at or after an edge belongs to the pixel ceil(edge - 0.5).
            x0, y0, x1, y1 = (max(0, math.ceil(edge - 0.5)) for edge in entry.box)
            covered[y0:y1, x0:x1] = True
    return covered


def _segment_mask(entry: Object, height: int, width: int) -> np.ndarray:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise SessError("segments: needs pycocotools: install sess-ray[evaluate]") from error
    segments = entry.segments
    try:
        if isinstance(segments, dict):
            code = _run_lengths(segments, height, width)
            if isinstance(code["counts"], list):
                code = mask.frPyObjects(code, height, width)
        else:
            code = mask.merge(mask.frPyObjects(segments, height, width))
        return mask.decode(code).astype(bool)
    except SessError:
        raise
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise SessError(f"a segment of {entry.label!r} is no polygon or run-length code: {reason}") from error


def _run_lengths(segments: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Check what pycocotools trusts: codes of the wrong length write outside of the mask."""
    size = [int(side) for side in segments["size"]]
    if size != [height, width]:
        raise SessError(f"segments are of an image of {size[1]} x {size[0]} pixels, this one has {width} x {height}")
    counts = segments["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    lengths = [int(count) for count in counts] if isinstance(counts, list) else list(_unpacked(counts))
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise SessError(f"segments: run lengths sum to {sum(lengths)}, not to {height} x {width}")
    return {"size": size, "counts": lengths if isinstance(counts, list) else counts}


def _unpacked(counts: bytes) -> Iterator[int]:
    """Yield the run lengths of a compressed code: 5 bits a character, signed, from the fourth on as differences."""
    lengths: list[int] = []
    value = shift = 0
    if any(not 48 <= character < 112 for character in counts) or (counts and (counts[-1] - 48) & 0x20):
        raise SessError(f"segments: {counts[:20]!r} is no compressed run-length code")
    for character in counts:
        digit = character - 48
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        lengths.append(value)
        yield value
        value = shift = 0


def _content(url: str, what: str) -> bytes:
    filesystem, path = open_filesystem(url)
    try:
        return filesystem.cat_file(path)
    except FileNotFoundError as error:
        raise SessError(f"no such {what}: {url}") from error
    except Exception as error:
        raise SessError(f"cannot read {what} {url}: {type(error).__name__}: {error}".split("\n")[0]) from error


def _decoded(content: bytes, url: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unknown_format(url, f"bytes that are no text, beginning {content[:8]!r}") from error


def _unknown_format(url: str, what: str) -> SessError:
    return SessError(f"no annotations in a known format in {url}: found {what}; known are {'; '.join(FORMATS)}")


def _read_folder(found: Annotations, filesystem: fsspec.AbstractFileSystem, path: str) -> None:
    path = path.rstrip("/")
    root = f"{path}/Annotations" if filesystem.isdir(f"{path}/Annotations") else path
    paths = sorted(filesystem.find(root))
    documents = [place for place in paths if place.lower().endswith(".xml") and _visible(place)]
    if not documents:
        names = ", ".join(place[len(root) + 1 :] for place in paths[:3])
        raise _unknown_format(found.source, f"a folder without XML, with {names or 'nothing in it'}")
    for first in range(0, len(documents), XML_BATCH):
        batch = documents[first : first + XML_BATCH]
        contents = read_items([filesystem.unstrip_protocol(place) for place in batch], [-1] * len(batch))
        for place, content in zip(batch, contents, strict=True):
            name = place[len(root) + 1 :]
            if isinstance(content, Exception):
                found.problems.append((name, f"cannot be read: {type(content).__name__}: {content}"))
            else:
                _read_xml(found, content, name)


def _visible(path: str) -> bool:
    return not posixpath.basename(path).startswith(".")


def _read_file(found: Annotations, content: bytes, name: str) -> None:
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:4]
    if start == b"PAR1":
        _read_rows(found, _numbered(pq.read_table(pa.BufferReader(content)).to_pylist()))
    elif start[:1] == b"<" or content[:4] in (b"\xff\xfe<\0", b"\xfe\xff\0<"):
        _read_xml(found, content, name)
    elif start[:1] in (b"{", b"["):
        _read_json(found, _decoded(content, found.source), name)
    elif not start:
        raise _unknown_format(found.source, "an empty file")
    else:
        _read_table(found, _decoded(content, found.source))


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
    elif _is_coco(document):
        _read_coco(found, document)
    elif by_lines or _is_row(document):
        _read_rows(found, [("line 1", document)])
    else:
        raise _unknown_format(found.source, f"a JSON object with {_listed(document)}")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _is_coco(document: dict[str, Any]) -> bool:
    return all(isinstance(document.get(key), list) for key in ("images", "annotations", "categories"))


def _json_lines(found: Annotations, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                found.problems.append((f"line {number}", f"broken JSON: {error}"))


def _numbered(rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _read_coco(found: Annotations, document: dict[str, Any]) -> None:
    names = {entry["id"]: entry.get("name") for entry in _records(found, document, "categories")}
    images: dict[Any, Annotation] = {}
    for entry in _records(found, document, "images"):
        name = _text(entry.get("file_name"))
        if name is None:
            found.problems.append((f"image {entry['id']}", "has no file_name"))
        else:
            images[entry["id"]] = _image(found, name, entry)
    for entry in _records(found, document, "annotations"):
        image = images.get(entry.get("image_id"))
        if image is None:
            found.problems.append((f"annotation {entry['id']}", f"is of image {entry.get('image_id')}, not listed"))
        else:
            label = names.get(entry.get("category_id"))
            _add(found, image, label, entry.get("bbox"), "coco", entry.get("segmentation"))


def _records(found: Annotations, document: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of a list of COCO's that are objects with an id."""
    for number, entry in enumerate(document[key]):
        if isinstance(entry, dict) and isinstance(entry.get("id"), int | str):
            yield entry
        else:
            found.problems.append((f"{key}[{number}]", "is no object with an id"))


def _read_xml(found: Annotations, content: bytes, name: str) -> None:
    # Entities can grow without bounds; annotations have none. Without zeros UTF-16 can not hide them.
    if any(word in content.replace(b"\0", b"") for word in (b"<!DOCTYPE", b"<!ENTITY")):
        found.problems.append((name, "has a DOCTYPE or ENTITY, which is refused: remove it"))
        return
    try:
        root = ET.fromstring(content)  # noqa: S314 what is dangerous in it was just refused
    except (ET.ParseError, ValueError, LookupError) as error:
        found.problems.append((name, f"broken XML: {error}"))
        return
    if root.tag != "annotation":
        found.problems.append((name, f"has <{root.tag}> where Pascal VOC and ImageNet have <annotation>"))
        return
    database = (root.findtext("source/database") or "").lower()
    convention = "imagenet" if "imagenet" in database or "ilsvrc" in database else "voc"
    sides = {side: root.findtext(f"size/{side}") for side in ("width", "height")}
    image = _image(found, _xml_id(root, name), sides)
    for entry in root.findall("object"):
        box = entry.find("bndbox")
        corners = None if box is None else [box.findtext(corner) for corner in XML_CORNERS]
        _add(found, image, entry.findtext("name"), corners, convention)


def _xml_id(root: ET.Element, name: str) -> str:
    """Return the folder of the XML and the name that it gives, or its own: some of ImageNet's say "%s"."""
    folders = [part for part in posixpath.dirname(name).split("/") if part not in ("", "Annotations")]
    given = posixpath.basename((_text(root.findtext("filename")) or "").replace("\\", "/"))
    if given in ("", "%s"):
        given = posixpath.splitext(posixpath.basename(name))[0]
    return "/".join((*folders, given))


def _read_table(found: Annotations, text: str) -> None:
    header = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",")
    columns = [column.strip() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    if columns == ["ImageId", "PredictionString"]:
        for row in reader:
            image = _image(found, str(row["ImageId"]), {})
            words = (row["PredictionString"] or "").split()
            for first in range(0, len(words), 5):
                _add(found, image, words[first], words[first + 1 : first + 5], "imagenet")
    elif {*CORNERS, "label"} <= set(columns) and _first(columns, NAME_COLUMNS):
        _read_rows(found, _numbered(reader))
    elif len(columns) > 1:
        raise _unknown_format(found.source, f"a table with the columns {_listed(columns)}")
    else:
        raise _unknown_format(found.source, f"text that begins {header[:40].strip()!r}")


def _read_rows(found: Annotations, rows: Iterable[tuple[str, Any]]) -> None:
    """Read rows of images or of objects, each with its place in the file."""
    known = False
    first: Any = None
    for place, row in rows:
        first = row if first is None else first
        if not isinstance(row, dict):
            found.problems.append((place, f"is no object but {str(row)[:40]}"))
            continue
        known = known or _is_row(row)
        name = next(filter(None, (_text(row.get(column)) for column in NAME_COLUMNS)), None)
        if name is None:
            found.problems.append((place, f"has no {NAME_COLUMNS[0]} ({', '.join(NAME_COLUMNS[1:])})"))
            continue
        image = _image(found, name, row)
        for label, box, segments in _row_objects(found, image, row):
            _add(found, image, label, box, "edges", segments)
    if not known:
        what = f"with {_listed(first)}" if isinstance(first, dict) else f"such as {str(first)[:40]}"
        raise _unknown_format(found.source, f"rows {what}" if first is not None else "no rows")


def _is_row(row: dict[str, Any]) -> bool:
    contents = ({"objects"}, {"boxes"}, set(CORNERS), {"class_index"}, {"wnid"})
    return _first(row, NAME_COLUMNS) is not None and any(columns <= row.keys() for columns in contents)


def _row_objects(found: Annotations, image: Annotation, row: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield label, box and segments as a row has them: a list of objects, boxes of one class, or one object."""
    label = next((row[column] for column in ROW_LABELS if row.get(column) is not None), None)
    corners = [row.get(column) for column in CORNERS]
    several = row.get("objects") if row.get("objects") is not None else row.get("boxes")
    if several is not None and not isinstance(several, list):
        found.problems.append((image.image_id, f"objects are no list but {str(several)[:40]}"))
    elif row.get("objects") is not None:
        for entry in several or ():
            given = entry if isinstance(entry, dict) else {}
            yield given.get("label"), given.get("box"), given.get("segments")
    elif several is not None:
        yield from ((label, box, None) for box in several)
    elif any(_text(corner) for corner in corners) or (set(CORNERS) <= row.keys() and _text(label)):
        yield label, corners, row.get("segments")


def _image(found: Annotations, image_id: str, size: Mapping[str, Any]) -> Annotation:
    """Return the annotation of an image, a new one where it has none."""
    image = found.by_id.setdefault(image_id, Annotation(image_id))
    image.width = image.width or _side(size.get("width"))
    image.height = image.height or _side(size.get("height"))
    return image


def _add(
    found: Annotations, image: Annotation, label: object, box: object, convention: str, segments: object = None
) -> None:
    """Add an object to an image, or say in the problems why not."""
    name = _text(label)
    numbers = _numbers(box)
    if name is None or numbers is None or len(numbers) != 4:
        fault = "an object without a label" if name is None else f"an object {name!r} without a box of 4 numbers"
        found.problems.append((image.image_id, f"{fault}: {str(box)[:60]}"))
        return
    outline, complete = _outline(segments)
    if not complete:
        found.problems.append((image.image_id, f"an object {name!r} with segments that are neither polygons nor RLE"))
    image.objects.append(Object(name, CONVENTIONS[convention](*numbers), outline))


def _outline(segments: object) -> tuple[Segments | None, bool]:
    """Return the segments that are polygons or a run-length code, and whether these are all."""
    if isinstance(segments, dict):
        if segments.get("counts") is None:  # Parquet has all fields in all rows
            return None, not any(value is not None for value in segments.values())
        size = _numbers(segments.get("size"))
        complete = size is not None and len(size) == 2 and isinstance(segments["counts"], list | str | bytes)
        return (segments if complete else None), complete
    if segments is None or not isinstance(segments, list):
        return None, segments is None
    polygons = [points for points in map(_numbers, segments) if points is not None and _is_polygon(points)]
    return polygons or None, len(polygons) == len(segments)


def _is_polygon(points: list[float]) -> bool:
    return len(points) >= SHORTEST_POLYGON and len(points) % 2 == 0 and max(map(abs, points)) <= FARTHEST_POINT


def _numbers(values: object) -> list[float] | None:
    """Return finite numbers, also out of text; None where something else is among them."""
    if not isinstance(values, list | tuple):
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _side(value: object) -> int | None:
    numbers = _numbers([value])
    return int(numbers[0]) if numbers and numbers[0] >= 1 else None


def _text(value: object) -> str | None:
    return None if value is None or str(value).strip() == "" else str(value).strip()


def _first(columns: Iterable[str], known: Sequence[str]) -> str | None:
    present = set(columns)
    return next((name for name in known if name in present), None)


def _listed(names: Iterable[object]) -> str:
    shown = [str(name)[:40] for name in names]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") if shown else "nothing in it"


def _bare(path: str) -> str:
    """Return a path without the extension of an image: other dots belong to the name."""
    stem, extension = posixpath.splitext(path)
    return stem if extension.lower() in IMAGE_EXTENSIONS else path


def _suffixes(path: str) -> Iterator[str]:
    """Yield a path and what remains as its folders are removed from the left.

    >>> list(_suffixes("a/b/c.jpg"))
    ['a/b/c.jpg', 'b/c.jpg', 'c.jpg']
    """
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """Return keys to values; None where a key has several."""
    index: dict[str, str | None] = {}
    for key, value in pairs:
        index[key] = value if index.get(key, value) == value else None
    return index


def _table_pairs(text: str) -> list[tuple[str, str]]:
    """Return label and class of each row, a header left out."""
    delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    rows = [row for row in rows if any(row)]
    if rows and [cell.lower() for cell in rows[0]] in (["label", "index"], ["label", "class"], ["label", "name"]):
        rows = rows[1:]
    for row in rows:
        if len(row) != 2 or not all(row):
            raise SessError(f"a class map needs the two columns label and index in every row, not {row!r}")
    return [(label, index) for label, index in rows]
