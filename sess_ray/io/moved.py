"""Where images are now that have moved: what an input lists, found by their ids."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from sess_ray.io.checksums import checksums
from sess_ray.io.inputs import list_images


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
        sums = checksums(self._ids.to_pylist())
        self._places = np.argsort(sums)
        self._sums = sums[self._places]

    def find(self, ids: Iterable[str]) -> list[str | None]:
        """Return where images are; None for those that are not there."""
        wanted = list(ids)
        sums = checksums(wanted)
        return [
            self._uri(text, checksum, place)
            for text, checksum, place in zip(wanted, sums, np.searchsorted(self._sums, sums).tolist(), strict=True)
        ]

    def _uri(self, image_id: str, checksum: np.uint64, place: int) -> str | None:
        while place < len(self._sums) and self._sums[place] == checksum:
            row = int(self._places[place])
            if self._ids[row].as_py() == image_id:
                uri: str = self._uris[row].as_py()
                return uri
            place += 1
        return None
