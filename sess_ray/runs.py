"""Reading back what a run has stored: maps as arrays, and their images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import index
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.access import one_line, public
from sess_ray.errors import SessError
from sess_ray.io.decode import decode
from sess_ray.io.groups import count_maps, group_of, read_groups
from sess_ray.io.maps import decode_map
from sess_ray.io.moved import Moved
from sess_ray.io.reading import read_items
from sess_ray.io.store import ERRORS, FINISHED, MAPS, Store
from sess_ray.pictures.notebook import Html, figure, several, sliders
from sess_ray.pictures.overlay import OPACITY, windows_in_words

GROUPS_IN_MEMORY = 4  # row groups, of some dozens or hundreds of maps


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredMap:
    """A map, with what is known about it.

    Attributes
    ----------
    image_id, uri : str
        The image's path below the input (or the manifest's id), and where it was read from.
    target : int
        The class that is explained; for a group of classes a negative number, the same in every run.
    target_name : str
    target_classes : tuple of int
        The class, or the classes of the group.
    score : float
        Probability of the target on the whole image.
    predicted, predicted_score : int, float
        The class of highest probability on the whole image, and its probability.
    height, width : int
        Size of the image in pixels.
    peak_x, peak_y : int
        Where the map was largest before it was rounded to 8 bits.
    num_patches, num_scored, num_kept : int
        The number of windows, of windows that were scored, and of those that the pre-filter kept.
    method, model : str
    png : bytes
        The map as it is stored; smaller than the image if ``max_map_side`` was given.
    """

    image_id: str
    uri: str
    target: int
    target_name: str
    target_classes: tuple[int, ...]
    score: float
    predicted: int
    predicted_score: float
    height: int
    width: int
    peak_x: int
    peak_y: int
    num_patches: int
    num_scored: int
    num_kept: int
    method: str
    model: str
    png: bytes

    @cached_property
    def saliency(self) -> np.ndarray:
        """The map, (height, width) float32 in 0..1; enlarged if it was stored smaller (``max_map_side``)."""
        return decode_map(self.png, (self.height, self.width))

    @cached_property
    def _image(self) -> np.ndarray:
        return self.image()

    def image(self) -> np.ndarray:
        """Read the image, (height, width, 3) uint8, as it was explained: in RGB, rotated by its EXIF data.

        Raises
        ------
        SessError
            If it cannot be read, or no longer has the size that was explained.
        """
        [content] = read_items([self.uri])
        if isinstance(content, Exception):
            raise SessError(f"cannot read {public(self.uri)}: {one_line(content)}") from content
        pixels = decode(content)
        if pixels.shape[:2] != (self.height, self.width):
            found = " x ".join(map(str, pixels.shape[1::-1]))
            raise SessError(f"{public(self.uri)} is {found} now, its map {self.width} x {self.height}")
        return pixels

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the map over its image, or alone if the image cannot be read."""
        return self._figure(OPACITY)

    def _figure(self, opacity: float) -> str:
        lines = [f"{self.target_name}: {self.score:.1%}", windows_in_words(self.num_kept, self.num_patches)]
        try:
            image = self._image
        except SessError as error:
            image = None
            lines.append(str(error))
        return figure(self.saliency, image, self.image_id, *lines, opacity=opacity)

    def __repr__(self) -> str:
        return f"<map of {self.target_name!r} in {self.image_id!r}, {self.width} x {self.height}, p = {self.score:.3f}>"


class Run:
    """The maps of a run, in the order of their files; each is read on access, together with its row group.

    Parameters
    ----------
    url : str
        The output of an explain job, at a path or any URL that fsspec opens.
    images : str, optional
        Where the images are now, if they have moved: anything that the job takes as input.

    Raises
    ------
    SessError
        If there are no maps.
    """

    def __init__(self, url: str, images: str | None = None) -> None:
        self.url = url
        self._names = Store(url).tables("maps")
        if not self._names:
            raise SessError(f"{public(url)} has no maps: give the output of sess-ray explain")
        self._recent: list[tuple[str, int, pa.Table]] = []  # file, number of the first row there, rows
        self._moved = None if images is None else Moved(images)

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """The content of run.json (settings, model, versions, counts); None before the run has finished."""
        return Store(self.url).read_json(FINISHED)

    @cached_property
    def rows(self) -> pa.Table:
        """All columns of maps/ except the maps, in memory: some 200 bytes per row."""
        parts = Store(self.url).read_tables(self._names, [name for name in MAPS.names if name != "saliency"])
        return pa.concat_tables(parts, promote_options="default")

    @cached_property
    def errors(self) -> pa.Table:
        """The images that could not be explained: image_id, uri, stage, error."""
        store = Store(self.url)
        return pa.concat_tables([ERRORS.empty_table(), *store.read_tables(store.tables("errors"))])

    def find(self, image_id: str) -> list[StoredMap]:
        """Return the maps of an image. The first call reads all ids, which stay in memory."""
        return [self[number] for number in pc.indices_nonzero(pc.equal(self._ids, image_id)).to_pylist()]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, number: int) -> StoredMap: ...
    @overload
    def __getitem__(self, number: slice) -> list[StoredMap]: ...
    def __getitem__(self, number: int | slice) -> StoredMap | list[StoredMap]:
        if isinstance(number, slice):
            return [self[found] for found in range(len(self))[number]]
        place = range(len(self))[index(number)]
        part = int(np.searchsorted(self._ends, place, side="right"))
        table, first = self._group(self._names[part], place - int(self._ends[part] - self._counts[part]))
        return self._map(table, first)

    def __iter__(self) -> Iterator[StoredMap]:
        for name in self._names:
            for table in read_groups(Store(self.url), name):
                for number in range(table.num_rows):
                    yield self._map(table, number)

    def __repr__(self) -> str:
        return f"<run {public(self.url)}, {len(self)} maps>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the first maps (`show` takes their number)."""
        return show(self)._repr_html_()

    @cached_property
    def _counts(self) -> np.ndarray:
        """Rows in each file."""
        return np.array(count_maps(Store(self.url), self._names))

    @cached_property
    def _ends(self) -> np.ndarray:
        """Rows in each file and all files before it."""
        return np.cumsum(self._counts)

    @cached_property
    def _ids(self) -> pa.ChunkedArray:
        tables = Store(self.url).read_tables(self._names, ["image_id"])
        return pa.chunked_array([chunk for table in tables for chunk in table["image_id"].chunks], pa.string())

    def _group(self, name: str, row: int) -> tuple[pa.Table, int]:
        """Return a row group of a file, and the position in it of the file's row of this number."""
        for file, first, table in self._recent:
            if file == name and first <= row < first + table.num_rows:
                return table, row - first
        table, first = group_of(Store(self.url), name, row)
        self._recent = [*self._recent[1 - GROUPS_IN_MEMORY :], (name, first, table)]
        return table, row - first

    def _map(self, table: pa.Table, number: int) -> StoredMap:
        [row] = table.slice(number, 1).to_pylist()
        png = row.pop("saliency")["bytes"]
        row.setdefault("num_scored", row["num_patches"])  # outputs of versions that scored all windows do not say it
        row["target_classes"] = tuple(row.get("target_classes") or [row["target"]])  # nor those that knew no groups
        if self._moved is not None:
            row["uri"] = self._moved.find([row["image_id"]])[0] or row["uri"]
        return StoredMap(**row, png=png)


def show(run: Run | str, most: int = 6) -> Html:
    """Return the first maps of a run over their images, as a picture for a notebook.

    Parameters
    ----------
    run : Run or str
        An open run, or its path or URL.
    most : int
        Number of maps.
    """
    opened = open_run(run) if isinstance(run, str) else run
    maps = opened[:most]
    left = f", the first {len(maps)}" if len(opened) > len(maps) else ""
    return Html(several((found._repr_html_() for found in maps), f"{public(opened.url)}: {len(opened)} maps{left}"))


def browse(run: Run | str) -> Any:
    """Return sliders for the maps of a run and for their opacity, in a notebook with ipywidgets.

    Parameters
    ----------
    run : Run or str
        An open run, or its path or URL.

    Returns
    -------
    ipywidgets.VBox

    Raises
    ------
    SessError
        If ipywidgets is not installed.
    """
    opened = open_run(run) if isinstance(run, str) else run
    found = lru_cache(maxsize=1)(opened.__getitem__)  # moving the opacity's slider reads no map again
    return sliders(len(opened), lambda number, opacity: found(number)._figure(opacity))


def open_run(url: str, images: str | None = None) -> Run:
    """Open the output of an explain job; see `Run`.

    Examples
    --------
    >>> for row in open_run("out"):  # doctest: +SKIP
    ...     print(row.image_id, row.target_name, row.saliency.mean(), row.image().shape)
    """
    return Run(url, images)
