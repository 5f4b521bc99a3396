"""COCO's instances JSON of any number of images: sorted and written on a disk, a part of it in memory."""

from __future__ import annotations

import heapq
import json
import os
import pickle
import shutil
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from tempfile import TemporaryDirectory
from typing import IO, Self

from sess_ray.pipeline.cluster.rows import Row

ROWS = 50_000  # in memory; more are written to a disk, sorted


class Sorted:
    """Rows in the order of a column, whatever order they come in; of some that have the same the first comes first.

    Parameters
    ----------
    column : str
    """

    def __init__(self, column: str) -> None:
        self._key = itemgetter(column)
        self._rows: list[Row] = []
        self._folder = TemporaryDirectory()
        self._paths: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, row: Row) -> None:
        """Take a row."""
        self._rows.append(row)
        if len(self._rows) == ROWS:
            self._rows.sort(key=self._key)
            self._paths.append(os.path.join(self._folder.name, str(len(self._paths))))
            with open(self._paths[-1], "wb") as file:
                for one in self._rows:
                    pickle.dump(one, file)
            self._rows = []

    def __iter__(self) -> Iterator[Row]:
        runs: list[Iterator[Row]] = [_read(path) for path in self._paths]
        return heapq.merge(*runs, sorted(self._rows, key=self._key), key=self._key)


def _read(path: str) -> Iterator[Row]:
    with open(path, "rb") as file:
        while file.peek(1):
            row: Row = pickle.load(file)  # noqa: S301 - of our own, a moment ago
            yield row


def write_coco(rows: Iterable[Row], classes: Mapping[int, tuple[int, str]], path: str, names: str) -> None:
    """Write images and their objects as COCO has them, and the names of their files, a line each.

    Parameters
    ----------
    rows : iterable of dict
        Rows of `LABELLED`.
    classes : mapping of int to (int, str)
        Target to its number and name.
    path, names : str
        Files on this machine.
    """
    objects = f"{path}.objects"
    with open(path, "w") as images, open(objects, "w") as annotations, open(names, "wb") as listed:
        images.write('{"images": [')
        _write_rows(rows, images, annotations, listed)
        images.write('], "annotations": [')
        annotations.close()
        with open(objects) as written:
            shutil.copyfileobj(written, images)
        os.unlink(objects)
        categories = [{"id": number, "name": name, "target": target} for target, (number, name) in classes.items()]
        images.write(f'], "categories": {json.dumps(categories)}}}')


def _write_rows(rows: Iterable[Row], images: IO[str], annotations: IO[str], listed: IO[bytes]) -> None:
    place = 0
    for number, row in enumerate(rows, 1):
        known = {"id": number, "file_name": row["image_id"], "height": row["height"], "width": row["width"]}
        images.write(f"{', ' if number > 1 else ''}{json.dumps(known)}")
        listed.write(f"{row['name']}\n".encode())
        for text in row["objects"]:
            place += 1
            found = {"id": place, "image_id": number, **json.loads(text)}
            annotations.write(f"{', ' if place > 1 else ''}{json.dumps(found)}")
