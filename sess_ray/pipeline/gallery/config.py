"""The settings of a gallery: one definition for flags, file and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sess_ray.errors import SessError
from sess_ray.pipeline.cluster.flags import INPUT, METHOD, MODEL, OUTPUT, TARGETS, WINDOWS, check
from sess_ray.pipeline.cluster.settings import ReadsModel, RunsOnRay, named_runs
from sess_ray.pipeline.explain.config import DEMO_MODEL
from sess_ray.precision import Precision


@dataclass(frozen=True, kw_only=True)
class GalleryConfig(RunsOnRay):
    """Settings of `sess_ray.pipeline.gallery.job.run`.

    Parameters
    ----------
    run
        A run to show, as NAME=OUTPUT, the output of sess-ray explain; may be given several times, to show maps side by
        side.
    output
        Folder or URL for the pages; open its index.html.
    images
        Where the images are now, if they have moved.
    annotations
        Boxes to draw, as for sess-ray evaluate.
    evaluation
        The output of sess-ray evaluate on these runs, to show and order by its metrics.
    limit
        Show only the first N maps, by image and target; without it, and without --worst, 250,000.
    worst
        Show only the N worst maps of the first run, by the first metric of --evaluation.
    window_pages
        Explain N maps again, to show their every window: the worst by the evaluation's first metric, else the first.
    overwrite
        Replace the gallery in the output.
    """

    run: Annotated[tuple[str, ...], INPUT] = ()
    output: Annotated[str, OUTPUT] = "out/gallery"
    images: Annotated[str | None, INPUT] = None
    annotations: Annotated[str | None, INPUT] = None
    evaluation: Annotated[str | None, INPUT] = None
    limit: Annotated[int | None, INPUT] = None
    worst: Annotated[int | None, INPUT] = None
    window_pages: Annotated[int, WINDOWS] = 0
    overwrite: Annotated[bool, OUTPUT] = False

    def __post_init__(self) -> None:
        self.check()
        self.runs()
        if self.limit is not None and self.worst is not None:
            raise SessError("give either --limit or --worst")

    def runs(self) -> dict[str, str]:
        """Return the runs' names and where they are."""
        return named_runs(self.run)


@dataclass(frozen=True, kw_only=True)
class PatchConfig(ReadsModel):
    """What the page of one image shows.

    Parameters
    ----------
    image
        One image, in place of runs: the page shows its every window.
    target
        For --image: a class of the model, by index or name; top1 for the most likely.
    model
        For --image: a classifier, as for sess-ray explain.
    weights
        For --image: the model's weights, a file or "random". By default the pretrained ones.
    layer
        For --image: layer for class activation maps. By default it is found automatically.
    method
        For --image: base saliency method; all windows are explained.
    method_option
        For --image: an option of the method as key=value; may be given several times.
    num_scales
        For --image: number of scales, as for sess-ray explain.
    step_size
        For --image: pixels from one window to the next. By default the model's input size.
    pre_filter_ratio
        For --image: the initial position of the page's slider, which drops the windows of lowest class score.
    fade
        For --image: share of their side over which windows fade, as for sess-ray explain.
    fusion
        For --image: how maps of windows become one, as for sess-ray explain.
    precision
        For --image: the model's precision, as for sess-ray explain.
    """

    image: Annotated[str | None, INPUT] = None
    target: Annotated[str, TARGETS] = "top1"
    model: Annotated[str, MODEL] = DEMO_MODEL
    weights: Annotated[str | None, MODEL] = None
    layer: Annotated[str | None, MODEL] = None
    method: Annotated[str, METHOD] = "gradcam"
    method_option: Annotated[tuple[str, ...], METHOD] = ()
    num_scales: Annotated[int, WINDOWS] = 12
    step_size: Annotated[int | None, WINDOWS] = None
    pre_filter_ratio: Annotated[float | None, WINDOWS] = None
    fade: Annotated[float | None, WINDOWS] = None
    fusion: Annotated[Literal["seamless", "reference"], WINDOWS] = "seamless"
    precision: Annotated[Precision, MODEL] = "fp32"

    def __post_init__(self) -> None:
        check(vars(self))
