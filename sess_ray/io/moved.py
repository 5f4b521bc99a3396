"""Where images are now that have moved: what an input lists, found by their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from sess_ray.io.inputs import list_images


def marks_of(ids: Iterable[str]) -> np.ndarray:
    """Return 64 bits of each of some texts, (n,) uint64; that two are the same is as good as never luck, and may be."""
    marks = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids)
    return np.frombuffer(b"".join(marks), np.uint64)


class Moved:
    """Where the images of an input are, by their ids; it travels to other processes without a copy for each.

    Parameters
    ----------
    url : str
        What `sess_ray.io.inputs.list_images` takes. It is listed whole.
    """

    def __init__(self, url: str) -> None:
        images = list_images(url)
        self._ids, self._uris = (images[name].cast(pa.large_string()).combine_chunks() for name in ("image_id", "uri"))
        marks = marks_of(self._ids.to_pylist())
        self._places = np.argsort(marks)
        self._marks = marks[self._places]

    def find(self, ids: Iterable[str]) -> list[str | None]:
        """Return where images are; None for those that are not there."""
        wanted = list(ids)
        marks = marks_of(wanted)
        return [
            self._uri(text, mark, place)
            for text, mark, place in zip(wanted, marks, np.searchsorted(self._marks, marks).tolist(), strict=True)
        ]

    def _uri(self, image_id: str, mark: np.uint64, place: int) -> str | None:
        while place < len(self._marks) and self._marks[place] == mark:
            row = int(self._places[place])
            if self._ids[row].as_py() == image_id:
                uri: str = self._uris[row].as_py()
                return uri
            place += 1
        return None
