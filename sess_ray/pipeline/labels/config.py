"""The settings of pseudo-labels: one definition for flags, file, help and export.json."""

# Annotations are no text here: those of `OpensUrls` are read from the modules of its subclasses.

from dataclasses import dataclass
from typing import Annotated, Literal

from sess_ray.errors import SessError
from sess_ray.io.decode import MAX_PIXELS
from sess_ray.pipeline.cluster.flags import INPUT, METHOD, OUTPUT, TARGETS
from sess_ray.pipeline.cluster.settings import OpensUrls, key_values

# By what labels are worth on annotated images, see docs/labels.md.
THRESHOLD = 0.25
MIN_SCORE_PREDICTED, MIN_SCORE_GIVEN = 0.2, 0.05
MIN_PART = 0.1  # of instances: what is smaller is rather a crumb than an object


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(OpensUrls):
    """Settings of `sess_ray.pipeline.labels.job.run`.

    Parameters
    ----------
    run
        The output of sess-ray explain.
    images
        Where the images are now, if they have moved: a refinement reads them.
    max_pixels
        Do not refine the masks of larger images.
    min_score
        Leave out maps whose target has a lower probability in the whole image. Without it, 0.2 where the run explains
        what the model predicts (top1, top5 ...), and 0.05 where annotations, labels or a list of classes said what to
        explain.
    threshold
        Share of a map's maximum from which a pixel belongs to its target; without it, and without --evaluation, 0.25.
    evaluation
        Instead of a threshold: the output of sess-ray evaluate on annotated images of this run. Taken is the
        threshold of the best mask_iou; without that metric, of the best max_box_acc.
    refine
        Let masks follow the edges of their image: grabcut (OpenCV's) begins with what the map is sure of.
    refine_option
        An option of the refinement as key=value; may be given several times.
    instances
        Make an object of each connected part of a mask, rather than one of all of them.
    min_part
        Leave out connected parts with fewer pixels than this share of the mask's largest one; without it, 0.1 with
        --instances, else 0.
    output
        Folder or URL for the labels.
    overwrite
        Replace the labels that are in the output.
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
