"""Names for the files that are made of images: their paths without extension, wherever that will do.

Names are unique over a dataset of any size. Nearly all follow from the image's id alone; held are only the ids of which
others would have the same name, and they are found by 8 bytes for each image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sess_ray.io.checksums import checksums, repeated
from sess_ray.io.items import IMAGE_EXTENSIONS
from sess_ray.io.store import digest

# A name that can be a file below the output as it is: no step up, nothing hidden, nothing that a shell would mind.
_HARMLESS = re.compile(r"(?!.*\.\.)[\w-][\w. -]*(/[\w-][\w. -]*)*", re.ASCII)


@dataclass(frozen=True)
class Names:
    """What images are called as files.

    Attributes
    ----------
    apart : dict of str to str
        Names of the images that would share theirs with others.
    """

    apart: Mapping[str, str]

    def of(self, image_id: str) -> str:
        """Return the name of an image."""
        return self.apart.get(image_id) or _harmless(_stem(image_id), image_id)


def unique_names(ids: Callable[[], Iterator[list[str]]], stems: np.ndarray | None = None) -> Names:
    """Return names for images, as `file_names` of all of them.

    Parameters
    ----------
    ids : callable
        Reads their ids, some at a time, in an order that is always the same: once, and again where some would share
        their names.
    stems : ndarray, (n,) uint64, optional
        `stem_checksums` of the ids, each counted once, if somebody has read them already.
    """
    if stems is None:
        stems = np.concatenate([np.empty(0, np.uint64), *map(stem_checksums, ids())])
    sums = np.sort(stems)
    shared = repeated(sums)
    if not len(shared):
        return Names({})
    found = dict.fromkeys(_with(ids(), shared))
    # One that keeps its extension may be called as another is without.
    whole = np.intersect1d(checksums(image_id.lower() for image_id in found), sums)
    others = np.setdiff1d(whole, shared)
    if len(others):
        found |= dict.fromkeys(_with(ids(), others))
    return Names(file_names(found))


def _with(ids: Iterable[list[str]], sums: np.ndarray) -> Iterator[str]:
    """Yield the ids whose names have some sums."""
    for some in ids:
        yield from (some[place] for place in np.flatnonzero(np.isin(stem_checksums(some), sums)))


def stem_checksums(ids: Iterable[str]) -> np.ndarray:
    """Return `checksums` the names that images have by themselves, in small letters: some file systems do not care."""
    return checksums(_stem(image_id).lower() for image_id in ids)


def file_names(image_ids: Iterable[str]) -> dict[str, str]:
    """Return a name for the label image of each image: its path without extension, wherever that will do.

    Images of the same name but for the extension keep theirs; a name that is not harmless, or there twice, becomes
    another.

    Examples
    --------
    >>> file_names(["a/b.jpg", "c.jpg", "c.png", "../d.jpg"])
    {'a/b.jpg': 'a/b', 'c.jpg': 'c.jpg', 'c.png': 'c.png', '../d.jpg': 'image-2d1f881c407e810f3058'}
    """
    names = {image_id: _stem(image_id) for image_id in image_ids}
    names = {image_id: image_id if again else name for image_id, name, again in _marked(names)}
    return {
        image_id: _other(image_id) if again else _harmless(name, image_id) for image_id, name, again in _marked(names)
    }


def _stem(image_id: str) -> str:
    stem, dot, extension = image_id.rpartition(".")
    return stem if dot and f".{extension.lower()}" in IMAGE_EXTENSIONS else image_id


def _harmless(name: str, image_id: str) -> str:
    return name if _HARMLESS.fullmatch(name) else _other(image_id)


def _other(image_id: str) -> str:
    return f"image-{digest([image_id])}"


def _marked(names: dict[str, str]) -> Iterator[tuple[str, str, bool]]:
    """Yield images and names, and whether others have the same one, capitals or not: some file systems do not care."""
    times = Counter(name.lower() for name in names.values())
    return ((image_id, name, times[name.lower()] > 1) for image_id, name in names.items())
