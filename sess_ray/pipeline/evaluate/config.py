"""The settings of an evaluation: one definition for flags, file, help and summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sess_ray.errors import SessError, unknown
from sess_ray.pipeline.cluster.settings import OpensUrls, named_runs


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(OpensUrls):
    """Settings of `sess_ray.pipeline.evaluate.job.run`.

    Parameters
    ----------
    run
        A run to evaluate, as NAME=URL of the output of explain_dataset.py; may be given several times.
    compare
        A run and the one that it is compared with, as NAME=BASE; may be given several times. Without it, all are
        compared with the first.
    output
        Folder or URL for the results.
    images
        Where the images are, as for explain_dataset.py; without it, where the run read them.
    annotations
        What is where in the images: COCO instances JSON, Pascal VOC or ImageNet XML, ImageNet's csv, or a manifest.
        Without them, only metrics that ask the model are computed.
    class_map
        Which classes of the model a label of the annotations means: JSON of label to an index, a name or a list, or a
        CSV. Without it, labels are class indices, names or WordNet ids of the model.
    metrics
        Names or beginnings of names, separated by commas; without it, all that can be computed.
    region
        What the pointing game aims at: segments (boxes where an object has none) or boxes.
    model, weights, layer, class_names
        As for explain_dataset.py; without --model, those of the first run.
    precision, batch_size, actors, gpus_per_actor
        As for explain_dataset.py.
    limit
        Evaluate the first N maps of each run only.
    overwrite
        Replace the evaluation that is in the output.
    max_pixels
        Refuse larger images.
    """

    run: tuple[str, ...] = ()
    compare: tuple[str, ...] = ()
    output: str = "out/evaluation"
    images: str | None = None
    annotations: str | None = None
    class_map: str | None = None
    metrics: str | None = None
    region: Literal["segments", "boxes"] = "segments"
    model: str | None = None
    weights: str | None = None
    layer: str | None = None
    class_names: str | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int | None = None
    actors: str | None = None
    gpus_per_actor: float | None = None
    limit: int | None = None
    overwrite: bool = False
    max_pixels: int = 100_000_000

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SessError(f"--limit {self.limit}: use 1 or more")
        self.compared()
        self.access()

    def runs(self) -> dict[str, str]:
        """Return the runs' names and where they are."""
        return named_runs(self.run)

    def compared(self) -> list[tuple[str, str]]:
        """Return the runs that are compared, each with its base."""
        runs = list(self.runs())
        if not self.compare:
            return [(run, runs[0]) for run in runs[1:]]
        pairs = [(run.strip(), base.strip()) for run, _, base in (entry.partition("=") for entry in self.compare)]
        for name in (name for pair in pairs for name in pair):
            if name not in runs:
                raise unknown("run in --compare", name, runs)
        return pairs

    def metric_names(self) -> list[str]:
        """Return the names of metrics that are asked for."""
        return [name.strip() for name in (self.metrics or "").split(",") if name.strip()]
