"""The settings of an export: one definition for flags, file, help and export.json."""

from __future__ import annotations

from dataclasses import dataclass

from sess_ray.pipeline.cluster.settings import OpensUrls


@dataclass(frozen=True, kw_only=True)
class ExportConfig(OpensUrls):
    """Settings of `sess_ray.pipeline.export.job.run`.

    Parameters
    ----------
    run
        The output of explain_dataset.py.
    output
        Folder or URL for the labels.
    threshold
        Share of a map's maximum from which a pixel belongs to its target.
    evaluation
        Instead of a threshold: the output of evaluate_dataset.py on annotated images of this run. Masks then take the
        threshold of the best mask_iou, boxes that of the best max_box_acc; where it has one of the two, both take that.
    min_score
        Leave out maps whose target has a lower probability.
    overwrite
        Replace the labels that are in the output.
    """

    run: str = "out"
    output: str = "out/labels"
    threshold: float | None = None
    evaluation: str | None = None
    min_score: float = 0.0
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.access()
