"""The settings of a gallery: one definition for flags, file and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sess_ray.errors import SessError
from sess_ray.pipeline.cluster.settings import OpensUrls, named_runs
from sess_ray.pipeline.explain.config import DEMO_MODEL


@dataclass(frozen=True, kw_only=True)
class GalleryConfig(OpensUrls):
    """Settings of `sess_ray.pipeline.gallery.job.run`.

    Parameters
    ----------
    run
        NAME=OUTPUT of explain_dataset.py; may be given several times, for maps side by side.
    output
        Folder or URL for the pages: open its index.html.
    images
        Where the images are now, if they have moved.
    annotations
        Boxes to draw, as for evaluate_dataset.py.
    evaluation
        The output of evaluate_dataset.py on these runs: to order by its metrics.
    limit
        Show the first N maps only.
    overwrite
        Replace the gallery that is in the output.
    """

    run: tuple[str, ...] = ()
    output: str = "out/gallery"
    images: str | None = None
    annotations: str | None = None
    evaluation: str | None = None
    limit: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SessError(f"--limit {self.limit}: use 1 or more")
        self.runs()
        self.access()

    def runs(self) -> dict[str, str]:
        """Return the runs' names and where they are."""
        return named_runs(self.run)


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """What the page of one image shows.

    Parameters
    ----------
    image
        Instead of runs: one image, of which the page shows every window.
    target
        A class of the model, by index or name; top1 for the likeliest.
    model, weights, layer, method, method_option, num_scales, step_size, pre_filter_ratio, fusion, precision
        As for explain_dataset.py; all windows are explained, and the slider begins at this ratio.
    """

    image: str | None = None
    target: str = "top1"
    model: str = DEMO_MODEL
    weights: str | None = None
    layer: str | None = None
    method: str = "gradcam"
    method_option: tuple[str, ...] = ()
    num_scales: int = 12
    step_size: int | None = None
    pre_filter_ratio: float | None = None
    fusion: Literal["seamless", "reference"] = "seamless"
    precision: Literal["fp32", "bf16"] = "fp32"
