"""The settings of pseudo-labels: one definition for flags, file, help and labels.json."""

# Annotations are no text here: those of `RunsOnRay` are read from the modules of its subclasses.

from dataclasses import dataclass
from typing import Annotated, Literal

from sess_ray.errors import SessError
from sess_ray.io.decode import MAX_PIXELS
from sess_ray.pipeline.cluster.flags import INPUT, METHOD, OUTPUT, TARGETS
from sess_ray.pipeline.cluster.settings import RunsOnRay, key_values

# By what labels are worth on annotated images, see docs/labels.md.
THRESHOLD = 0.25
MIN_SCORE_PREDICTED, MIN_SCORE_GIVEN = 0.2, 0.05
MIN_PART = 0.1  # of instances: what is smaller is rather a crumb than an object


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(RunsOnRay):
    """Settings of `sess_ray.pipeline.labels.job.run`.

    Parameters
    ----------
    run
        The output of sess-ray explain.
    images
        Where the images are now, if they have moved; only a refinement reads them.
    max_pixels
        Do not refine the masks of images of more pixels.
    min_score
        Leave out maps whose target has a lower probability in the whole image. By default 0.2 if the run explains what
        the model predicts (top1, top5 ...), and 0.05 if annotations, labels or a list of classes said what to explain.
    threshold
        Share of a map's maximum from which a pixel belongs to the target. By default, without --evaluation, 0.25.
    evaluation
        In place of a threshold: the output of sess-ray evaluate on annotated images of this run. The threshold with the
        best mask_iou is used; without that metric, the one with the best max_box_acc.
    refine
        Make masks follow the edges of their image: grabcut (OpenCV's) starts from the pixels of which the map is sure.
    refine_option
        An option of the refinement as key=value; may be given several times.
    instances
        Make each connected part of a mask an object of its own, rather than one object of all parts.
    min_part
        Leave out connected parts with fewer pixels than this share of the mask's largest part. By default 0.1 with
        --instances, else 0.
    output
        Folder or URL for the labels.
    overwrite
        Replace the labels in the output.
    """

    run: Annotated[str, INPUT] = "out"
    images: Annotated[str | None, INPUT] = None
    max_pixels: Annotated[int, INPUT] = MAX_PIXELS
    min_score: Annotated[float | None, TARGETS] = None
    threshold: Annotated[float | None, METHOD] = None
    evaluation: Annotated[str | None, METHOD] = None
    refine: Annotated[Literal["grabcut"] | None, METHOD] = None
    refine_option: Annotated[tuple[str, ...], METHOD] = ()
    instances: Annotated[bool, METHOD] = False
    min_part: Annotated[float | None, METHOD] = None
    output: Annotated[str, OUTPUT] = "out/labels"
    overwrite: Annotated[bool, OUTPUT] = False

    def __post_init__(self) -> None:
        for flag, value in (("threshold", self.threshold), ("min-part", self.min_part), ("min-score", self.min_score)):
            if value is not None and not 0 <= value <= 1:
                raise SessError(f"--{flag} {value}: use a share, 0 to 1")
        if self.threshold is not None and self.evaluation is not None:
            raise SessError("give either --threshold or --evaluation, which has the best one")
        if self.refine_option and self.refine is None:
            raise SessError("--refine-option: say which refinement by --refine")
        self.refine_options()
        self.check()

    def refine_options(self) -> dict[str, str]:
        """Return the options of the refinement; their values are checked by it."""
        return key_values(self.refine_option, "--refine-option")
