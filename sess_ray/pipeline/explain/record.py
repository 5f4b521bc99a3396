"""What a run did, as its last lines and run.json say it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sess_ray.access import public_command
from sess_ray.pipeline.cluster.output import versions
from sess_ray.pipeline.explain.prepare import Job


@dataclass(frozen=True)
class Total:
    """What an output holds: images with maps, rows of maps/ and rows of errors/."""

    images: int
    maps: int
    errors: int


@dataclass
class Summary:
    """What a run did.

    Attributes
    ----------
    images, maps, errors : int
        Images explained, rows of maps/, rows of errors/.
    windows : int
        Windows scored.
    patches, kept : int
        Windows over all maps, and those that were kept.
    actor_seconds : float
        That actors spent on images that were explained.
    seconds, first_seconds : float
        From the first task to the last row, and to the first.
    actors : int
        Workers that hold the model, at most.
    failed : Counter
        Errors by the stage that they are of.
    total : Total
        What the output holds in the end, with what other runs left there.
    """

    images: int = 0
    maps: int = 0
    errors: int = 0
    windows: int = 0
    patches: int = 0
    kept: int = 0
    actor_seconds: float = 0.0
    seconds: float = 0.0
    first_seconds: float = 0.0
    first_done: int = 0  # images of the first rows,
    first_actor_seconds: float = 0.0  # and what actors spent on them
    actors: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    total: Total = Total(0, 0, 0)
    overlays: list[str] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)  # rows of errors/, the first

    def add(self, counts: dict[str, Any], seconds: float) -> None:
        """Add what `stages.write` says of a block that was there after so many seconds."""
        for name in ("images", "maps", "errors", "windows", "patches", "kept", "actor_seconds"):
            setattr(self, name, getattr(self, name) + counts[name])
        self.failed.update(counts["failed"])
        self.seconds, self.actors = seconds, counts.get("actors", 0)
        if not self.first_seconds:
            self.first_seconds, self.first_done, self.first_actor_seconds = seconds, self.done, self.actor_seconds

    @property
    def done(self) -> int:
        """Images that are explained, and those that could not be."""
        return self.images + self.errors

    @property
    def rate(self) -> float:
        """Images done in a second since the first rows, before which workers start; of the first, in all."""
        since = self.seconds - self.first_seconds
        if since > 0 and self.done > self.first_done:
            return (self.done - self.first_done) / since
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def busy(self) -> float | None:
        """The share of their time since the first rows in which actors explained; None until there are others."""
        since = (self.seconds - self.first_seconds) * self.actors
        return min(1.0, (self.actor_seconds - self.first_actor_seconds) / since) if since > 0 else None


def record(job: Job, summary: Summary, started: datetime) -> dict[str, Any]:
    packages = ("sess-ray", "ray", "torch", "torchvision", "pyarrow", "pillow", "fsspec", "numpy")
    return {
        "config": job.config.public(),
        "pre_filter_ratio": job.config.ratio(),  # those of config are null where they are the method's own
        "fade": job.config.fades(),
        "model": {
            "name": job.model.name,
            "layer": job.model.layer,
            "input_size": job.model.input_size,
            "mean": job.model.mean,
            "std": job.model.std,
            "num_classes": job.model.num_classes,
            "activation": job.model.activation,
            "notes": job.model.notes,
            "weights_sha256": job.made_with["weights"],
        },
        "groups": job.groups,
        "left_out": job.left_out,  # of the annotations or the labels
        "versions": versions(*packages),
        "started": started.isoformat(timespec="seconds"),
        "counts": {
            "inputs": job.inputs,
            "images": summary.total.images,
            "maps": summary.total.maps,
            "errors": summary.total.errors,
        },
        "this_run": {  # and the figures below; other runs on the same output have finished the rest
            "images": summary.images,
            "maps": summary.maps,
            "errors": summary.errors,
            "windows": summary.windows,
        },
        "share_kept": summary.kept / summary.patches if summary.patches else None,
        "errors_by_stage": dict(summary.failed),
        "actors": summary.actors,
        "actor_seconds": round(summary.actor_seconds, 3),
        "actor_busy_share": None if summary.busy is None else round(summary.busy, 3),
        "seconds": round(summary.seconds, 3),
        "seconds_to_first_rows": round(summary.first_seconds, 3),
        "images_per_second": round(summary.images / summary.seconds, 3) if summary.seconds else None,
        "windows_per_second": round(summary.windows / summary.seconds, 1) if summary.seconds else None,
        "command": public_command(sys.argv),
    }
