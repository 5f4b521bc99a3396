"""The settings of an evaluation: one definition for flags, file, help and summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sess_ray.errors import SessError, unknown
from sess_ray.pipeline.cluster.flags import CLUSTER, INPUT, METRICS, MODEL, OUTPUT
from sess_ray.pipeline.cluster.settings import ReadsModel, RunsOnRay, named_runs
from sess_ray.precision import Precision


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ReadsModel, RunsOnRay):
    """Settings of `sess_ray.pipeline.evaluate.job.run`.

    Parameters
    ----------
    run
        A run to evaluate, as NAME=OUTPUT, the output of sess-ray explain; may be given several times.
    compare
        Two runs to compare, as NAME=BASE; may be given several times. By default all runs are compared with the first.
    output
        Folder or URL for the results.
    images
        Where the images are now, as a folder or a URL. By default where the run read them.
    annotations
        What is where in the images: COCO instances JSON, Pascal VOC or ImageNet XML, ImageNet's csv, or a manifest.
        Without annotations only metrics that run the model are computed.
    class_map
        Which of the model's classes an annotated label means: a JSON object of label to an index, a name, a range or a
        list, or a CSV. By default labels are class indices, names or WordNet ids.
    metrics
        Names or beginnings of names, separated by commas. By default all that can be computed.
    region
        What the pointing game and PxAP aim at: segments (for objects without any, boxes) or boxes.
    pointing_smooth
        Blur maps before the pointing game, with a sigma of this share of their longer side. By default as in TorchRay's
        benchmark: 0.02 for maps of pixel gradients, 0 for others.
    model
        The model that metrics run, given as for sess-ray explain. By default that of the first run.
    weights
        Weights of --model. Without --model, those of the first run.
    layer
        Layer of --model for class activation maps. By default it is found automatically.
    class_names
        A text file with the names of the classes, one per line.
    precision
        The model's precision: fp32; bf16, which is faster on processors that support it; or tf32, which on a GPU rounds
        factors to 10 bits.
    batch_size
        Images in one forward pass. By default 8 on a CPU, and on a GPU 256 of 224 x 224 pixels, more of smaller and
        fewer of larger ones.
    actors
        Number of workers that hold the model, N or MIN-MAX. By default one for each GPU or, without GPUs, for each CPU.
    gpus_per_actor
        GPUs for each worker, also a fraction. By default 1 if the cluster has GPUs.
    limit
        Evaluate only the first N maps of each run.
    overwrite
        Replace the evaluation in the output.
    max_pixels
        Refuse images of more pixels.
    """

    run: Annotated[tuple[str, ...], INPUT] = ()
    compare: Annotated[tuple[str, ...], METRICS] = ()
    output: Annotated[str, OUTPUT] = "out/evaluation"
    images: Annotated[str | None, INPUT] = None
    annotations: Annotated[str | None, METRICS] = None
    class_map: Annotated[str | None, METRICS] = None
    metrics: Annotated[str | None, METRICS] = None
    region: Annotated[Literal["segments", "boxes"], METRICS] = "segments"
    pointing_smooth: Annotated[float | None, METRICS] = None
    model: Annotated[str | None, MODEL] = None
    weights: Annotated[str | None, MODEL] = None
    layer: Annotated[str | None, MODEL] = None
    class_names: Annotated[str | None, MODEL] = None
    precision: Annotated[Precision, MODEL] = "fp32"
    batch_size: Annotated[int | None, MODEL] = None
    actors: Annotated[str | None, CLUSTER] = None
    gpus_per_actor: Annotated[float | None, CLUSTER] = None
    limit: Annotated[int | None, INPUT] = None
    overwrite: Annotated[bool, OUTPUT] = False
    max_pixels: Annotated[int, INPUT] = 100_000_000

    def __post_init__(self) -> None:
        self.check()
        if self.class_map is not None and self.annotations is None:
            raise SessError("--class-map says what labels of --annotations mean: give both")
        self.compared()
        if self.model is None and (self.prompts or self.said() != ReadsModel().said()):
            raise SessError("--input-size, --mean, --std, --activation and --prompts are of --model: give it, too")

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
