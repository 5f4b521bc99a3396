"""Where the objects are: boxes, segments and labels of images, and what labels mean to a model.

All boxes are in pixels of the image, their upper ends exclusive: a box that covers the whole of a 500 x 375 image is
(0, 0, 500, 375). `sess_ray.io.annotation_formats` reads them.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.io.items import IMAGE_EXTENSIONS
from sess_ray.opening import readable
from sess_ray.small import as_text, read_text

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
    crowd : bool
        COCO's mark of a region with many things of the class.
    """

    label: str
    box: Box
    segments: Segments | None = None
    difficult: bool = False
    crowd: bool = False


@dataclass(slots=True)
class Annotation:
    """What is known of one image.

    Attributes
    ----------
    image_id : str
        Its file name or path as the file says, as `plain_path` writes it. Of XML: the XML's folder below the one that
        was read, and the name inside, or where several give the same name, that of the XML.
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
        Image (or the place in the file) and what is wrong, for each entry that was left out: a reason that others may
        share, and after a colon what is its own.
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
        image_id = plain_path(image_id)
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

    def reasons(self) -> Counter[str]:
        """Return why entries were left out, each reason with their number, the most frequent first."""
        counts = Counter(detail.partition(":")[0] for _, detail in self.problems)
        return Counter(dict(counts.most_common()))

    def problems_of(self, image_id: str) -> list[str]:
        """Return what is wrong with the entries of an image that were left out, by `Annotation.image_id`."""
        return self._problems.get(image_id, [])

    @cached_property
    def _problems(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for place, detail in self.problems:
            found.setdefault(place, []).append(detail)
        return found

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
            text = as_text(read_text(url, "class map"))
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


def plain_path(path: str) -> str:
    r"""Return a path as annotations are looked up by it, however a program has written it.

    Examples
    --------
    >>> plain_path("images\\train\\1.jpg"), plain_path("./images//1.jpg"), plain_path("s3://b//1.jpg")
    ('images/train/1.jpg', 'images/1.jpg', 's3://b//1.jpg')
    """
    path = unicodedata.normalize("NFC", readable(path)).replace("\\", "/")
    return path if "://" in path else posixpath.normpath(path)


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
