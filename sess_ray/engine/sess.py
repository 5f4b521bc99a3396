"""SESS: windows of many images through one scoring pass, their maps fused image by image.

Tursun et al., "SESS: Saliency Enhancing with Scaling and Sliding", ECCV 2022.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sess_ray import methods
from sess_ray.engine.chosen import threshold
from sess_ray.engine.cutting import Normalizer, Source, whole
from sess_ray.engine.explanation import Explanation
from sess_ray.engine.extraction import Extraction
from sess_ray.engine.finishing import Ending, one_batch_later
from sess_ray.engine.guided import Guide
from sess_ray.engine.scoring import Scoring
from sess_ray.engine.settings import Settings, default_batch_size
from sess_ray.engine.targets import Goal, TargetSpec, above, checked
from sess_ray.engine.work import Work
from sess_ray.errors import SessError, unknown
from sess_ray.io.given import ImageLike, listed, pixels_of
from sess_ray.models import Model, load_model
from sess_ray.models.model import DTYPES
from sess_ray.precision import Precision
from sess_ray.products import multiplying
from sess_ray.transfer import pixels_on
from sess_ray.windows import Plan


class SESS:
    """Explain images with a base saliency method inside SESS.

    Parameters
    ----------
    model : Model, nn.Module or str
        What `load_model` returns or accepts. A copy is used: yours keeps its device, mode and gradients.
    method : str, callable or Method
        A registered base method (``methods.names()``), ``captum:NAME``, ``package.module:function``, or a function.
    num_scales : int or None
        Number of scales; scale i = 0, 1, ... has a short side of window + 64 i pixels (`sess_ray.windows.sess_plan`
        has the rule for windows that are not square). None or 0 explains without SESS: the whole image resized to the
        model's input, and the one map resized back, without filter, fusion or smoothing.
    step_size : int, optional
        Pixels from one window to the next, along both axes. By default the window's height and its width.
    pre_filter_ratio : float, optional
        Share of the windows that are dropped, those of lowest class score. By default the method's own
        (`sess_ray.methods.registry.DEFAULTS`); the paper uses 0, 0.9 and 0.99.
    fade : float, optional
        Share of a window's side, 0 to 0.5, over which its map fades towards its inner borders, those that are not at
        the image's edge. The coverage fades in the same way, so that the map is a weighted mean. By default the
        method's own, whatever `pre_filter_ratio` is. The fusion ``reference`` has no fading.
    windows : {"all", "guided"}
        Which windows are scored. Guided: all windows of the coarse scales, and of each finer scale those where the
        Grad-CAM map so far is brightest, whatever the method (`sess_ray.engine.guided`). The other windows count as
        dropped by the pre-filter, which keeps as many windows as it would of all.
    whole_scales : int
        With guided windows: number of coarse scales of which all windows are scored.
    window_share : float
        With guided windows: share of each finer scale's windows that is scored, 0 < share <= 1; at least one window.
    fusion : {"seamless", "reference"}
        See `sess_ray.engine.fusion.fuse`. ``reference`` with ``normalize=False, smooth=False, precision="fp32"`` is the
        arithmetic of the public release of SESS.
    normalize, smooth : bool
        Whether to stretch the fused map to 0..1, and to smooth it with a Gaussian.
    precision : {"fp32", "tf32", "bf16"}
        The model's precision; maps and scores are always float32. fp32 is exact on a GPU too; tf32 lets a GPU round the
        factors of products to 10 bits, as torch does for convolutions by default.
    device : str or torch.device, optional
        By default ``cuda`` if it is available.
    batch_size : int, optional
        Patches in one batch, from as many images as are needed to fill it. By default 8 on a CPU, and on a
        GPU 256 of 224 x 224 pixels, more of smaller and fewer of larger ones.
    max_map_side : int, optional
        Make maps whose longer side has at most this many pixels, to save time and space if images are large. They are
        smoothed at their own size. By default every map has its image's size.
    max_patches : int
        Refuse images that need more windows, such as 20,000 x 30 pixels.
    seed : int
        For methods that draw random numbers: the same seed gives the same map, whatever else is explained.
    method_options : dict, optional
        Options of the method (``sess_ray.methods.get(method).options``).
    keep_maps : bool
        Also return the maps of the kept windows, as ``patch_maps``.

    Examples
    --------
    >>> import numpy as np
    >>> sess = SESS(load_model("squeezenet1_1", weights="random"), num_scales=2, device="cpu")
    >>> [[explanation]] = sess.explain([np.zeros((240, 320, 3), np.uint8)], targets=[[7]])
    >>> explanation.saliency.shape, explanation.target_name, explanation.num_patches, explanation.num_kept
    ((240, 320), 'cock', 6, 6)
    """

    def __init__(
        self,
        model: Model | nn.Module | str,
        method: str | Callable[..., Tensor] | methods.Method = "gradcam",
        num_scales: int | None = 12,
        step_size: int | None = None,
        pre_filter_ratio: float | None = None,
        windows: str = "all",
        whole_scales: int = 4,
        window_share: float = 0.25,
        fusion: str = "seamless",
        normalize: bool = True,
        smooth: bool = True,
        precision: Precision = "fp32",
        device: str | torch.device | None = None,
        batch_size: int | None = None,
        max_map_side: int | None = None,
        max_patches: int = 5000,
        seed: int = 0,
        method_options: Mapping[str, object] | None = None,
        keep_maps: bool = False,
        fade: float | None = None,
    ) -> None:
        base = methods.get(method)
        options = base.parsed(method_options or {})
        if precision not in DTYPES:
            raise unknown("precision", precision, DTYPES)
        where = _available(device)
        loaded = load_model(model)
        settings = Settings(
            method=base,
            method_options=options,
            window=loaded.input_size,
            num_scales=num_scales or None,
            step_size=step_size,
            pre_filter_ratio=base.ratio(pre_filter_ratio),
            windows=windows,
            whole_scales=whole_scales,
            window_share=window_share,
            fusion=fusion,
            normalize=normalize,
            smooth=smooth,
            dtype=DTYPES[precision],
            tf32=precision == "tf32",
            device=where,
            batch_size=default_batch_size(where, loaded.input_size) if batch_size is None else batch_size,
            max_map_side=max_map_side,
            max_patches=max_patches,
            seed=seed,
            keep_maps=keep_maps,
            fade=base.fade(fade, fusion),
        )
        prepared = loaded.prepared(where, precision)
        methods.require(base, prepared)
        self._adopt(prepared, settings)

    def _adopt(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.method, self.batch_size = settings.method, settings.batch_size
        self.num_scales, self.pre_filter_ratio = settings.num_scales, settings.ratio
        self.fusion, self.fade = settings.fusion, settings.fades
        self.normalize, self.smooth = settings.normalize, settings.smooths
        self.device, self.dtype = settings.device, settings.dtype
        self.normalizer = Normalizer(model.mean, model.std, settings.device)

    def with_batch_size(self, batch_size: int) -> SESS:
        """Return an engine that shares this one's model and takes this many patches at a time."""
        return self.changed(batch_size=batch_size)

    def with_scales(self, num_scales: int | None) -> SESS:
        """Return an engine that shares this one's model and takes this many scales."""
        return self.changed(num_scales=num_scales or None)

    def changed(self, **changes: Any) -> SESS:
        """Return an engine that shares this one's model, some of its `settings` changed."""
        other = object.__new__(type(self))
        other._adopt(self.model, replace(self.settings, **changes))
        return other

    def plan(self, height: int, width: int) -> Plan:
        """Return the windows of an image of this size; `SessError` if there are more than `max_patches`."""
        return self.settings.plan(height, width)

    def num_scored(self, plan: Plan) -> int:
        """Return how many windows of a plan are scored for one target; several targets may take more."""
        return self.settings.num_scored(plan)

    def explain(
        self, images: ImageLike | Sequence[ImageLike], targets: str | Sequence[TargetSpec] = "top1"
    ) -> list[list[Explanation]]:
        """Explain images.

        Parameters
        ----------
        images : sequence of images
            Paths or URLs; Pillow images, read as their files would be; arrays or tensors of RGB (H, W, 3), grey or with
            alpha, uint8 or floats from 0 to 1 (`sess_ray.io.given.pixels_of`). One image counts as a sequence of one.
        targets : str or sequence
            ``"top1"``, ``"top5"`` ... for the classes of highest score on the whole image; ``"p>0.5"`` for those with
            a probability above 0.5, at most 20, descending; or a list of classes for each image,
            ``[[948], ["tabby", 235]]``. A dict is a group, ``[[{"dog": range(151, 269)}], [948]]``: the classes that
            one name means are explained together (`sess_ray.models.groups`). A tuple of indices gives alternatives,
            ``[[948], [(281, 282), 235]]``: the one of highest score on the whole image is explained.

        Returns
        -------
        list of list of Explanation
            For each image, one for each of its targets.

        Raises
        ------
        SessError
            If an image has no pixels or needs more windows than `max_patches`, or a target is not a class of the model.
        """
        images = listed(images)
        specs = [targets] * len(images) if isinstance(targets, str) else _entries(targets)
        if len(specs) != len(images):
            raise SessError(f"{len(specs)} targets for {len(images)} images: give one entry an image")
        return [found for _, found in self.stream(zip(images, specs, strict=True))]

    def stream(self, images: Iterable[tuple[ImageLike, TargetSpec]]) -> Iterator[tuple[int, list[Explanation]]]:
        """Explain (image, targets) pairs as `explain` does, one after the other, without holding all of them.

        Yields
        ------
        (int, list of Explanation)
            Position in `images`, in ascending order, as soon as the image's last window is scored.
        """
        explained = _explained(self, images)
        while True:
            # Only while this runs: between two images the caller's own settings are in force.
            with multiplying(tf32=self.settings.tf32):
                found = next(explained, None)
            if found is None:
                return
            yield found


def _entries(targets: object) -> list[Any]:
    """Return an entry for each image."""
    if isinstance(targets, Mapping) or not isinstance(targets, Iterable):
        raise SessError(f'targets {targets!r}: give "top1", "p>0.5", or a list with the targets of each image')
    return list(targets)


def _explained(sess: SESS, images: Iterable[tuple[ImageLike, TargetSpec]]) -> Iterator[tuple[int, list[Explanation]]]:
    without: deque[int] = deque()  # images with nothing to explain

    def begun() -> Iterator[Work]:
        for index, item in enumerate(images):
            work = work_of(sess, index, item)
            if work:
                yield work
            else:
                without.append(index)

    works = Scoring(sess.model, sess.settings)(begun())
    if sess.method.family != "T":
        works = Extraction(sess.model, sess.settings)(works)
    for work, ending in one_batch_later(works, lambda work: Ending(work, sess.model, sess.settings)):
        while without and without[0] < work.index:
            yield without.popleft(), []
        yield work.index, ending.read()
    yield from ((index, []) for index in without)


def work_of(sess: SESS, index: int, item: tuple[ImageLike, TargetSpec]) -> Work | None:
    """Return the state in which an image enters the engine; `SessError` if it is not an image.

    None if there is nothing to explain: none of its classes has a probability above the threshold that is asked for.
    """
    image, spec = item
    try:
        array = pixels_of(image)
    except SessError as error:
        raise SessError(f"image {index}: {error}") from error
    settings = sess.settings
    plan = settings.plan(*array.shape[:2])
    pixels = pixels_on(settings.device, array).permute(2, 0, 1)
    guide = Guide(plan, settings.whole_scales, settings.window_share) if settings.guides else None
    source = Source(pixels, sess.normalizer)
    targets, known = checked(spec, sess.model), None
    least = threshold(targets)
    if least is not None:
        known = _probabilities(sess, source, plan)
        targets = above(known[: sess.model.num_classes].cpu(), least)
    if not targets:
        return None
    goal = Goal.of(targets, settings.device)
    work = Work(index, source, plan, goal, settings.ratio, guide=guide, whole_is_patch=settings.num_scales is None)
    if known is not None:
        work.meet(known, sess.model.num_classes)
    return work


def _probabilities(sess: SESS, source: Source, plan: Plan) -> Tensor:
    """Return the probabilities on a whole image, (classes + groups,), before it is known which targets it has."""
    patch = whole(source, plan).to(sess.settings.dtype).contiguous(memory_format=torch.channels_last)
    return sess.model.probabilities(sess.model.logits(patch))[0]


def _available(device: str | torch.device | None) -> torch.device:
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise SessError(f"device {str(device)!r} is not available: {str(error).split(chr(10))[0]}") from error
    return found
