"""What lies in a folder and is no image by its name: it is left out, counted, and said."""

from __future__ import annotations

import logging
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator

from sess_ray.io.items import HEIF, IMAGE_EXTENSIONS, SHARD

TOLD = 5  # kinds of files
# Of these one cannot read a member without unpacking what is before it.
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip", ".7z", ".rar")
MANIFESTS = (".csv", ".tsv", ".jsonl", ".ndjson")
# What users of such files want to know.
ADVICE = {
    **dict.fromkeys(HEIF, "install sess-ray[heif]"),
    **dict.fromkeys(
        (".jxl", ".psd", ".svg", ".exr", ".hdr", ".dcm", ".nef", ".cr2", ".cr3", ".arw", ".dng"), "convert them"
    ),
    **dict.fromkeys(MANIFESTS, "give it as the input if it lists the images"),
    **dict.fromkeys((".arrow", ".feather"), "write it as Parquet"),
    **dict.fromkeys(ARCHIVES, "unpack it"),
    "": "name them in a manifest if they are images",
}

logger = logging.getLogger("sess_ray")  # where nobody has set logging up, its warnings are lines on stderr


def noted(paths: Iterable[str], others: Counter[str]) -> Iterator[str]:
    """Yield paths, and count by their extensions the files that are no images, shards or tables by their names.

    Hidden files are not counted.
    """
    known = {*IMAGE_EXTENSIONS, SHARD, ".parquet"}
    for path in paths:
        name = posixpath.basename(path)
        extension = _extension(name.lower())
        if extension not in known and not name.startswith("."):
            others[extension] += 1
        yield path


def _extension(name: str) -> str:
    return next((end for end in ARCHIVES if name.endswith(end)), posixpath.splitext(name)[1])


def told(others: Counter[str]) -> str:
    """Return in words what was left out.

    >>> told(Counter({".txt": 1, ".jxl": 12, "": 2}))
    '12 .jxl (convert them), 2 without an extension (name them in a manifest if they are images) and 1 .txt'
    """
    kinds = []
    for extension, number in sorted(others.items(), key=lambda one: (-one[1], one[0])):
        advice = ADVICE.get(extension, "")
        kinds.append(f"{number:,} {extension or 'without an extension'}{f' ({advice})' if advice else ''}")
    if len(kinds) > TOLD:
        kinds[TOLD - 1 :] = [f"{len(kinds) - TOLD + 1} more kinds"]
    *first, last = kinds
    return f"{', '.join(first)} and {last}" if first else last


def tell(others: Counter[str]) -> None:
    """Say in a line what was left out, if anything was."""
    if others:
        logger.warning("left out, no images by their names: %s", told(others))
