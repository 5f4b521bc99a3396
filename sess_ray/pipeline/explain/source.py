"""Where the tasks of spans come from: read in the process that reads their images. Nothing needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from sess_ray.io.cuts import Shards, numbers_of
from sess_ray.io.held import Held, images_in
from sess_ray.io.items import folder_label, is_shard, split_uri
from sess_ray.io.pieces import Generations, Whole, generations, place
from sess_ray.io.spans import Image, Spans
from sess_ray.io.store import Store
from sess_ray.pipeline.cluster.rows import Row

TOGETHER = 128  # images of which the bytes are held at the same time
INPUT_STAGE = "input"  # of what a manifest says of an image


@dataclass(frozen=True)
class Source:
    """Where the tasks of lines come from, for the process that reads them.

    Attributes
    ----------
    spans : Spans
    output : str
        Where the files of spans lie that another run has begun.
    stop : int
        The row behind the last that is explained.
    top : str or None
        What to explain of each image: "topK" or "p>T".
    targets : list of tuples of int, or None
        Or these, of each its alternatives. With neither, the manifest says it of each image.
    level : int or None
        The level of the folders that are the classes of images without a label.
    """

    spans: Spans
    output: str
    stop: int
    top: str | None = None
    targets: list[tuple[int, ...]] | None = None
    level: int | None = None

    def left(self, held: Held) -> dict[int, int]:
        """Return the spans that are not finished, and how many of their rows are not there."""
        found = {}
        for span in range(-(-self.stop // self.spans.size)):
            begin, end = self.spans.bounds(span)
            rows = min(end, self.stop) - begin - held.rows.get(span, 0)
            if span not in held.finished and (rows > 0 or span in held.crowded):
                found[span] = max(1, rows)
        return found

    def tasks(self, span: int, begin: int, end: int, files: list[str] | None) -> list[Row]:
        """Return the tasks of a line, with what they say of themselves in `DECODED`."""
        done, beside = images_in(Store(self.output), files or ()), generations(files or ())
        return [
            self._task(image, span, beside)
            for image in self.spans.images(span)
            if begin <= image[1][0] < end and image[0]["image_id"] not in done
        ]

    def _task(self, image: Image, span: int, beside: Generations) -> Row:
        row, rows = image
        if row["error"] is None and is_shard(row["uri"]):
            row["error"] = "a tar shard in a large manifest: give --input the folder of the shards, or a glob"
        labels = row["labels"] or (None if self.level is None else folder_label(row["folder"], self.level))
        return {
            **row,
            "top": self.top,
            "labels": labels,
            "names": row["targets"],
            "targets": self.targets,
            "stage": row["error"] and INPUT_STAGE,
            "carried": place(span, rows, beside),
        }

    def together(self, table: pa.Table) -> Iterator[list[Row]]:
        """Yield the tasks of lines, as many as are read together: rows of one Parquet file, or some files."""
        for line in table.to_pylist():
            tasks = self.tasks(**line)
            packed = any(split_uri(task["uri"])[1] is not None for task in tasks[:1])
            size = len(tasks) if packed else TOGETHER
            yield from (tasks[start : start + size] for start in range(0, len(tasks), size))


@dataclass(frozen=True)
class TarSource:
    """Where the tasks of tar shards come from, each of which is a span.

    Attributes
    ----------
    output : str
        Where the files of spans lie that another run has begun.
    spans : Shards
    """

    output: str
    spans: Shards = field(default_factory=Shards)

    def together(self, table: pa.Table) -> Iterator[list[Row]]:
        """Yield the tasks of shards, each by itself, with its span, and the names of what is done of it.

        An empty name stands for what an error says of the shard.
        """
        for row in table.to_pylist():
            files = row.pop("files") or ()
            [span], below = numbers_of([row["image_id"]]), f"{row['image_id']}/"
            ids = images_in(Store(self.output), files)
            done = sorted("" if name == row["image_id"] else name.removeprefix(below) for name in ids)
            own = [span] if row["error"] else []  # the error is all that there is of it
            carried = place(span, own, generations(files), Whole().plus(own) if own else None)
            yield [{**row, "done": done, "carried": carried}]
