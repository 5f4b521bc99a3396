"""Pictures of the first images, while the rest is explained; and of finished ones, where more are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pyarrow.compute as pc

from sess_ray.io.decode import decode
from sess_ray.io.groups import read_groups
from sess_ray.io.maps import decode_map
from sess_ray.io.reading import read_items
from sess_ray.pictures.overlay import overlay, windows_in_words
from sess_ray.pipeline.explain.prepare import Job

FOLDER = "overlays"


class Pictures:
    """The pictures of an output: as many as are asked for, those of an earlier run among them.

    Parameters
    ----------
    job : Job

    Attributes
    ----------
    drawn : list of str
        The files that were drawn here.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._there = set(job.store.files(FOLDER, ".png")) if job.config.overlays else set()
        self._failed = 0  # images that were moved, or are signed for: lest all that are finished are tried
        self.drawn: list[str] = []

    @property
    def are_enough(self) -> bool:
        return len(self._there) + self._failed >= self._job.config.overlays

    def draw(self, name: str) -> None:
        """Draw the images of a file of maps, until there are enough pictures."""
        if name and not self.are_enough:
            for group in read_groups(self._job.store, name):
                self._draw(group.to_pylist())
                if self.are_enough:
                    return

    def draw_finished(self, files: Iterable[str]) -> None:
        """Draw what is explained already, in these files of maps, until there are enough pictures."""
        for file in files:
            if self.are_enough:
                return
            self.draw(file)

    def _draw(self, rows: list[dict[str, Any]]) -> None:
        job = self._job
        for row in rows:
            name = _name(row)
            if self.are_enough:
                return
            if name in self._there:
                continue
            [content] = read_items([self._uri(row)])
            try:
                if isinstance(content, Exception):
                    raise content
                pixels = decode(content, job.config.max_pixels)
            except Exception:
                self._failed += 1
                continue
            windows = windows_in_words(row["num_kept"], row["num_patches"])
            saliency = decode_map(row["saliency"]["bytes"], (row["height"], row["width"]))
            caption = f"{row['target_name']}: p = {row['score']:.2f}, {windows}"
            job.store.write(name, overlay(pixels, saliency, caption))
            self._there.add(name)
            self.drawn.append(name)

    def _uri(self, row: dict[str, Any]) -> str:
        """Return where an image is read: a task's URI may hold a signature, which is not written into rows."""
        place = pc.index(self._job.tasks["image_id"], row["image_id"]).as_py()
        uri: str = row["uri"] if place < 0 else self._job.tasks["uri"][place].as_py()
        return uri


def _name(row: dict[str, Any]) -> str:
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in row["image_id"].rsplit(".", 1)[0])[-80:]
    mark = hashlib.sha256(row["image_id"].encode()).hexdigest()[:6]
    return f"{FOLDER}/{stem}-{mark}-{row['target']}.png"
