"""Where the objects are: boxes, segments and labels of images, and what labels mean to a model.

All boxes are in pixels of the image, their upper ends exclusive: a box that covers the whole of a 500 x 375 image is
(0, 0, 500, 375). `sess_ray.io.annotation_formats` reads them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from sess_ray.access import public
from sess_ray.errors import SessError, unknown
from sess_ray.io.items import IMAGE_EXTENSIONS
from sess_ray.small import read_small

Box = tuple[float, float, float, float]
Segments = list[list[float]] | dict[str, Any]
Kind = Literal["boxes", "segments"]


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
    difficult : bool
        Pascal VOC's mark of what is hard to recognise: not counted by itself.
    """

    label: str
    box: Box
    segments: Segments | None = None
    difficult: bool = False


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
        The URL they were read from, without credentials.
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
        The URL it was read from, without credentials.
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
            or TSV with the columns label and index (or name), a row for each pair. A range of indices such as
            "151-268" counts as a name, and so does what else `classes` resolves.

        Raises
        ------
        SessError
            If it cannot be read, or is something else.
        """
        place = public(url)
        try:
            text = read_small(url, "class map").decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SessError(f"class map {place} is no text: write JSON or CSV") from error
        if text.lstrip().startswith("{"):
            try:
                pairs = list(json.loads(text).items())
            except ValueError as error:
                raise SessError(f"class map {place} is broken JSON: {error}") from error
        else:
            pairs = _table_pairs(text)
        entries: dict[str, tuple[int | str, ...]] = {}
        for label, value in pairs:
            classes = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, int | str) and not isinstance(entry, bool) for entry in classes):
                raise SessError(f"class map {place}: {label!r} needs an index, a name or a list of them, not {value!r}")
            entries[label] = (*entries.get(label, ()), *classes)
        if not entries:
            raise SessError(f"class map {place} is empty: write a JSON object {{label: index}}, or columns label,index")
        return cls(entries, place)

    def classes(self, label: str, resolve: Callable[[str], Iterable[int]]) -> tuple[int, ...]:
        """Return the indices of the classes that a label means; none where it means none.

        Parameters
        ----------
        label : str
        resolve : callable
            An index or a name to the indices that it means (`sess_ray.models.groups.members`); raises `SessError` for
            what the model does not know.

        Raises
        ------
        SessError
            If the map names a class that the model does not have.
        """
        if self.entries is None:
            try:
                return tuple(resolve(label))
            except SessError:
                return ()
        try:
            return tuple(dict.fromkeys(index for entry in self.entries.get(label, ()) for index in resolve(str(entry))))
        except SessError as error:
            raise SessError(f"class map {self.source}: label {label!r}: {error}") from error


def region(objects: Iterable[Object], height: int, width: int, kind: Kind) -> np.ndarray:
    """Return which pixels objects cover.

    Parameters
    ----------
    objects : iterable of Object
    height, width : int
        Size of the image in pixels.
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
