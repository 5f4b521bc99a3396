"""The explain command in this process: its stages one after the other, without Ray."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pyarrow as pa

from sess_ray import methods
from sess_ray.pipeline.cluster import session
from sess_ray.pipeline.explain import actor, job, metering
from sess_ray.pipeline.explain.stages import read_and_decode, write


def stages(checked):
    """Do what `job.stream` does, with all images in one block."""
    config, model, access = checked.config, checked.model, checked.config.access()
    options = {**config.explainer_options(), "method": methods.get(config.method)}
    needed = config.needed(model.input_size)
    decoded = pa.concat_tables(read_and_decode(checked.tasks, access, config.max_pixels, needed))
    for table in actor.ExplainActor(model, options)(decoded):
        counts = write(table, access, checked.store.location, config.method, model.name)
        yield from ({**row, "actors": 1} for row in counts.to_pylist())


def stay_here(monkeypatch):
    """Let ``sess-ray explain`` start no Ray."""
    monkeypatch.setattr(actor, "ray", SimpleNamespace(get=lambda value: value))
    monkeypatch.setattr(session, "start_early", lambda _: None)
    monkeypatch.setattr(job, "connect", lambda _: None)
    monkeypatch.setattr(job, "stream", stages)
    monkeypatch.setattr(metering, "add", lambda *_, **__: None)
    monkeypatch.setattr(metering, "running", nullcontext)
