"""The settings of an export: one definition for flags, file, help and export.json."""

# Annotations are no text here: those of `OpensUrls` are read from the modules of its subclasses.

from dataclasses import dataclass

from sess_ray.errors import SessError
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
        Instead of a threshold: the output of evaluate_dataset.py on annotated images of this run. Taken is the
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

    run: str = "out"
    output: str = "out/labels"
    threshold: float | None = None
    evaluation: str | None = None
    instances: bool = False
    min_part: float = 0.0
    min_score: float = 0.0
    overwrite: bool = False

    def __post_init__(self) -> None:
        for flag, value in (("threshold", self.threshold), ("min-part", self.min_part), ("min-score", self.min_score)):
            if value is not None and not 0 <= value <= 1:
                raise SessError(f"--{flag} {value}: use a share, 0 to 1")
        self.access()
