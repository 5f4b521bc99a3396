"""The settings of an explain job: one definition for flags, file, help and run.json."""

# Annotations are no text here: those of `RunsOnRay` are read from the modules of its subclasses.

from dataclasses import dataclass
from typing import Annotated, Literal

from sess_ray.engine.chosen import is_top, threshold
from sess_ray.errors import SessError
from sess_ray.io.decode import Sides
from sess_ray.pipeline.cluster.flags import CLUSTER, INPUT, METHOD, MODEL, OUTPUT, TARGETS, WINDOWS
from sess_ray.pipeline.cluster.settings import ReadsModel, RunsOnRay, actor_range, key_values
from sess_ray.precision import Precision
from sess_ray.windows import Size, needed

DEMO_MODEL = "sess_ray.demo:efficientnet_lite0"


@dataclass(frozen=True, kw_only=True)
class TakesOutput:
    """The setting of a job that needs its output for itself.

    Parameters
    ----------
    wait
        If another run works on the output, wait for it, and then do what is left. By default say who it is, and stop.
    """

    wait: Annotated[bool, OUTPUT] = False


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(ReadsModel, RunsOnRay, TakesOutput):
    """Settings of `sess_ray.pipeline.explain.job.run`.

    Parameters
    ----------
    input
        A folder (searched recursively), a glob, a manifest (.csv, .tsv, .jsonl, .parquet) or one image, as a path or a
        URL such as s3://bucket/images. By default sample images are explained.
    image_column
        The manifest's column that holds the images or says where they are, if it is not found automatically.
    label_column
        The manifest's column for --targets label, if it is not called label, class or class_index.
    output
        Folder or URL for the results.
    model
        A torchvision or timm classifier (timm/NAME where both have one), hf:NAME_OR_FOLDER of Hugging Face
        transformers, open_clip:NAME/TAG, hf-hub:NAME of timm, or your own package.module:function.
    weights
        A .safetensors file or a state dict, as a path or a URL; "random" for untrained weights. By default the
        pretrained weights are downloaded.
    layer
        Layer for class activation maps, named as in named_modules(). By default it is found automatically.
    class_names
        A text file with the names of the classes, one per line.
    method
        Base saliency method (--list-methods shows all); another library's, captum:NAME, pytorch_grad_cam:NAME or
        zennit:COMPOSITE; or your own package.module:function.
    method_option
        An option of the method as key=value; may be given several times.
    targets
        What to explain: auto (what the annotations or the manifest say, else top1), label (the manifest's, else the
        folder's name), top1, top5 ..., p>0.5 (all classes of the image with a probability above 0.5, at most 20), or
        classes by index or name, separated by commas. A name may mean several classes, a group that is explained as
        one: dog=151-268, pets=dog+281-285, or for ImageNet's classes a node of WordNet, such as dog. Names that contain
        commas, and prompts, are separated by semicolons: a dog; a cat.
    annotations
        Explain what is annotated in each image, as for sess-ray evaluate.
    class_map
        Which of the model's classes an annotated label, or a name in --targets, means; as for sess-ray evaluate.
    several_classes
        If an annotated label means several classes: explain them as a group, or only the best, the class of highest
        score in each image.
    num_scales
        Number of scales; the short side of scale i, i = 0, 1, ..., is the model's input + 64 i pixels. 0 explains
        without SESS.
    step_size
        Pixels from one window to the next, along both axes. By default the model's input size.
    pre_filter_ratio
        Share of the windows that is dropped, those of lowest class score. By default 0 if a window's map costs nothing
        beyond its score (family T of --list-methods) and for shapleycam, 0.5 if it costs one pass, else 0.8. The paper
        uses 0, 0.9 and 0.99.
    fade
        Share of a window's side, at most 0.5, over which its map fades towards its borders inside the image, so that
        they do not show. By default 0.1 where --pre-filter-ratio is 0 by default, 0.25 where it is 0.8, else 0.
    windows
        Which windows are scored: all; or guided, of fine scales only those where the map so far is brightest.
    whole_scales
        With --windows guided: number of coarse scales of which all windows are scored.
    window_share
        With --windows guided: share of each finer scale's windows that is scored.
    fusion
        How the maps of windows become one: seamless divides by the coverage of all windows; reference is the arithmetic
        of SESS's public release.
    normalize
        Stretch each fused map to 0..1.
    smooth
        Blur each fused map with a Gaussian of 11 x 11 pixels, sigma 5.
    precision
        The model's precision. bf16 is faster on GPUs, and on CPUs that support it. fp32 is exact on GPUs too; tf32 lets
        a GPU (Ampere or later) round the factors of products to 10 bits.
    batch_size
        Windows in one forward pass. By default 8 on a CPU, and on a GPU 256 of 224 x 224 pixels, more of smaller and
        fewer of larger ones.
    actors
        Number of workers that hold the model, N or MIN-MAX (a cluster that grows is asked for MIN at once). By default
        one for each GPU or, without GPUs, for each CPU.
    gpus_per_actor
        GPUs for each worker, also a fraction. By default 1 if the cluster has GPUs.
    limit
        Explain only the first N images.
    overwrite
        Replace the run in the output. By default a run with the same settings is resumed.
    retry_errors
        Resume, and try the images in errors/ again.
    resume_anyway
        Resume although the weights or the code have changed since the output was started, or the input, annotations,
        class map or class names are at another place.
    dry_run
        Check everything, say what would be done and estimate how long it takes, and stop.
    max_errors
        Fail if more than N images cannot be explained. By default they are only counted.
    max_pixels
        Refuse images of more pixels.
    max_map_side
        Make and store maps whose longer side has at most this many pixels, and decode no more of a large image than
        they and the largest scale need. Readers enlarge them. By default maps have their images' size.
    max_patches
        Refuse images that need more windows, such as 20,000 x 30 pixels.
    overlays
        Draw the first N images with their maps, also those that were explained by an earlier command.
    seed
        For methods that draw random numbers.
    """

    input: Annotated[str | None, INPUT] = None
    image_column: Annotated[str | None, INPUT] = None
    label_column: Annotated[str | None, INPUT] = None
    output: Annotated[str, OUTPUT] = "out"
    model: Annotated[str, MODEL] = DEMO_MODEL
    weights: Annotated[str | None, MODEL] = None
    layer: Annotated[str | None, MODEL] = None
    class_names: Annotated[str | None, MODEL] = None
    method: Annotated[str, METHOD] = "gradcam"
    method_option: Annotated[tuple[str, ...], METHOD] = ()
    targets: Annotated[str, TARGETS] = "auto"
    annotations: Annotated[str | None, TARGETS] = None
    class_map: Annotated[str | None, TARGETS] = None
    several_classes: Annotated[Literal["group", "best"], TARGETS] = "group"
    num_scales: Annotated[int, WINDOWS] = 12
    step_size: Annotated[int | None, WINDOWS] = None
    pre_filter_ratio: Annotated[float | None, WINDOWS] = None
    fade: Annotated[float | None, WINDOWS] = None
    windows: Annotated[Literal["all", "guided"], WINDOWS] = "all"
    whole_scales: Annotated[int, WINDOWS] = 4
    window_share: Annotated[float, WINDOWS] = 0.25
    fusion: Annotated[Literal["seamless", "reference"], WINDOWS] = "seamless"
    normalize: Annotated[bool, WINDOWS] = True
    smooth: Annotated[bool, WINDOWS] = True
    precision: Annotated[Precision, MODEL] = "fp32"
    batch_size: Annotated[int | None, MODEL] = None
    actors: Annotated[str | None, CLUSTER] = None
    gpus_per_actor: Annotated[float | None, CLUSTER] = None
    limit: Annotated[int | None, INPUT] = None
    overwrite: Annotated[bool, OUTPUT] = False
    retry_errors: Annotated[bool, OUTPUT] = False
    resume_anyway: Annotated[bool, OUTPUT] = False
    dry_run: Annotated[bool, OUTPUT] = False
    max_errors: Annotated[int | None, OUTPUT] = None
    max_pixels: Annotated[int, INPUT] = 100_000_000
    max_map_side: Annotated[int | None, OUTPUT] = None
    max_patches: Annotated[int, WINDOWS] = 5000
    overlays: Annotated[int, OUTPUT] = 8
    seed: Annotated[int, METHOD] = 0

    def __post_init__(self) -> None:
        if self.num_scales < 0:
            raise SessError(f"--num-scales {self.num_scales}: use 1 or more, or 0 for no SESS")
        self.check()
        _check_together(self)
        actor_range(self.actors)
        self.method_options()
        self.said()

    def method_options(self) -> dict[str, str]:
        """Return the options of the method; their values are checked by the method."""
        return key_values(self.method_option, "--method-option")

    def ratio(self) -> float:
        """Return the pre-filter ratio that is used: what is given, or the method's own; without SESS, 0."""
        from sess_ray import methods  # needs torch

        return methods.get(self.method).ratio(self.pre_filter_ratio) if self.num_scales else 0.0

    def fades(self) -> float:
        """Return over which share of their sides windows fade: what is given, or the method's own; without SESS, 0."""
        from sess_ray import methods  # needs torch

        return methods.get(self.method).fade(self.fade, self.fusion) if self.num_scales else 0.0

    def needed(self, input_size: Size) -> Sides | None:
        """Return how large an image has to be, for a model's input; see `sess_ray.windows.needed`."""
        return needed(input_size, self.num_scales, self.max_map_side)

    def explainer_options(self) -> dict[str, object]:
        """Return the keyword arguments of `sess_ray.SESS`."""
        return {
            "method": self.method,
            "method_options": self.method_options(),
            "num_scales": self.num_scales or None,
            "step_size": self.step_size,
            "pre_filter_ratio": self.pre_filter_ratio,
            "fade": self.fade,
            "windows": self.windows,
            "whole_scales": self.whole_scales,
            "window_share": self.window_share,
            "fusion": self.fusion,
            "normalize": self.normalize,
            "smooth": self.smooth,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "max_map_side": self.max_map_side,
            "max_patches": self.max_patches,
            "seed": self.seed,
        }


def _check_together(config: ExplainConfig) -> None:
    """Refuse settings that contradict one another, or say nothing without another."""
    for flag, column in (("--image-column", config.image_column), ("--label-column", config.label_column)):
        if column is not None and config.input is None:
            raise SessError(f"{flag} {column} is of the tables of an --input: give one")
    if config.label_column is not None and config.targets != "label":
        raise SessError(f"--label-column {config.label_column} is for --targets label: add that")
    if config.annotations is not None and config.targets != "auto":
        raise SessError("--annotations say which classes to explain: leave out --targets")
    if config.class_map is not None and config.annotations is None and config.targets == "auto":
        raise SessError("--class-map says what labels of --annotations, or names in --targets, mean: give one of them")
    if config.class_map is not None and (is_top(config.targets) or threshold(config.targets) is not None):
        raise SessError(f"--class-map says what names in --targets mean, and {config.targets} has none: leave one out")
    if config.fade and config.fusion == "reference":
        raise SessError(f"--fade {config.fade:g}: --fusion reference has no fading: leave out one of the two")
    if config.overwrite and (config.retry_errors or config.resume_anyway):
        raise SessError("--overwrite starts anew: leave out --retry-errors and --resume-anyway")
