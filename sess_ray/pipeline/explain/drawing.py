"""Pictures of the first images, while the rest is explained."""

from __future__ import annotations

import hashlib

from sess_ray.io.decode import decode
from sess_ray.io.maps import decode_map
from sess_ray.io.reading import read_items
from sess_ray.pictures.overlay import overlay
from sess_ray.pipeline.explain.prepare import Job
from sess_ray.pipeline.explain.record import Summary


def draw(job: Job, name: str, summary: Summary) -> None:
    """Draw the images of a file of maps, until there are enough pictures."""
    for row in job.store.read_table(name).to_pylist():
        if len(summary.overlays) >= job.config.overlays - job.finished:
            return
        [content] = read_items([row["uri"]])
        if isinstance(content, Exception):
            continue
        caption = f"{row['target_name']}: p = {row['score']:.2f}, {row['num_kept']} of {row['num_patches']} windows"
        saliency = decode_map(row["saliency"]["bytes"], (row["height"], row["width"]))
        picture = overlay(decode(content, job.config.max_pixels), saliency, caption)
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in row["image_id"].rsplit(".", 1)[0])[-80:]
        mark = hashlib.sha256(row["image_id"].encode()).hexdigest()[:6]
        name = f"overlays/{stem}-{mark}-{row['target']}.png"
        job.store.write(name, picture)
        summary.overlays.append(name)
