"""The layouts that a run can be exported in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sess_ray.io.store import Store
from sess_ray.pipeline.export import fiftyone, huggingface, tars
from sess_ray.pipeline.export.samples import KEPT, Facts, Sample


@dataclass(frozen=True)
class Format:
    """A layout.

    Attributes
    ----------
    contents : tuple of str
        Files and folders that it writes.
    kinds : mapping
        Those of `KEPT` that stay as they are.
    pack : callable
        Writes the samples of a shard, given its number and how many there are; yields what is to be said of each image
        in one place.
    finish : callable
        Writes that, as it comes, in the order of shards; and what is said of all.
    """

    contents: tuple[str, ...]
    kinds: Mapping[str, str]
    pack: Callable[[Iterable[Sample], Store, int, int], Iterator[str]]
    finish: Callable[[Iterable[str], Store, Facts], None]


FORMATS = {
    "hf": Format(huggingface.CONTENTS, KEPT, huggingface.pack, huggingface.finish),
    "fiftyone": Format(fiftyone.CONTENTS, KEPT, fiftyone.pack, fiftyone.finish),
    "webdataset": Format(tars.CONTENTS, {"JPEG": "jpg"}, tars.pack, tars.finish),
}
