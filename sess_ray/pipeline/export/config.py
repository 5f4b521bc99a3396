"""The settings of an export: one definition for flags, file, help and export.json."""

# Annotations are no text here: those of `OpensUrls` are read from the modules of its subclasses.

from dataclasses import dataclass
from typing import Annotated

from sess_ray.errors import SessError
from sess_ray.pipeline.cluster.flags import INPUT, OUTPUT, TARGETS
from sess_ray.pipeline.cluster.settings import OpensUrls


@dataclass(frozen=True, kw_only=True)
class ExportConfig(OpensUrls):
    """Settings of `sess_ray.pipeline.export.job.run`.

    Parameters
    ----------
    run
        The output of sess-ray explain.
    output
        Folder or URL for the labels.
    threshold
        Share of a map's maximum from which a pixel belongs to its target.
    evaluation
        Instead of a threshold: the output of sess-ray evaluate on annotated images of this run. Taken is the
        threshold of the best mask_iou; without that metric, of the best max_box_acc.
    instances
        Make an object of each connected part of a mask, rather than one of all of them.
    min_part
        Leave out connected parts with fewer pixels than this share of the mask's largest one.
    min_score
        Leave out maps whose target has a lower probability.
    overwrite
        Replace the labels that are in the output.
    """

    run: Annotated[str, INPUT] = "out"
    output: Annotated[str, OUTPUT] = "out/labels"
    threshold: Annotated[float | None, TARGETS] = None
    evaluation: Annotated[str | None, TARGETS] = None
    instances: Annotated[bool, TARGETS] = False
    min_part: Annotated[float, TARGETS] = 0.0
    min_score: Annotated[float, TARGETS] = 0.0
    overwrite: Annotated[bool, OUTPUT] = False

    def __post_init__(self) -> None:
        for flag, value in (("threshold", self.threshold), ("min-part", self.min_part), ("min-score", self.min_score)):
            if value is not None and not 0 <= value <= 1:
                raise SessError(f"--{flag} {value}: use a share, 0 to 1")
        self.check()
