"""SESS: windows of many images through one scoring pass, their maps fused image by image.

Tursun et al., "SESS: Saliency Enhancing with Scaling and Sliding", ECCV 2022.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sess_ray import methods
from sess_ray.engine.batches import Segment, Work, batches
from sess_ray.engine.cutting import Normalizer, Source, cut
from sess_ray.engine.fusion import FUSIONS, fuse, keep, num_kept
from sess_ray.engine.guided import Guide, least_scored
from sess_ray.errors import SessError, unknown
from sess_ray.methods.cam import gradcam
from sess_ray.models import Model, load_model
from sess_ray.models.model import DTYPES, Precision, Tap
from sess_ray.windows import Plan, fitted, sess_plan, whole_plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ImageLike = Image.Image | np.ndarray
TargetSpec = str | int | Sequence[int | Sequence[int]]

PATCH_DTYPE = np.dtype([("scale", "i4"), ("y", "i4"), ("x", "i4"), ("score", "f4"), ("scored", "?"), ("kept", "?")])
# On a CPU a small batch stays in the cache; a GPU wants to be full.
BATCH_SIZES = {"cpu": 8, "cuda": 128}
# What an image may keep of its scoring pass for methods that look at the layer; what needs more is computed again.
LAYER_BYTES = 1 << 28
LAYER = ("activations", "gradients")
WINDOWS = ("all", "guided")


@dataclass(frozen=True)
class Explanation:
    """One saliency map, of one image for one class.

    Attributes
    ----------
    saliency : numpy.ndarray, (H, W) float32
        At the image's own size, or `SESS.max_map_side`'s, in 0..1.
    target : int
        Class explained.
    target_name : str
    score : float
        Softmax probability of the target on the whole image, resized to the model's input.
    predicted, predicted_name, predicted_score : int, str, float
        Top class on the whole image.
    patches : numpy.ndarray, (P,) structured
        Every window: ``scale`` (index), ``y``, ``x`` (in pixels of the scaled image), ``score`` (probability of the
        target; NaN where no forward pass was spent), ``scored`` (for this target's sake), ``kept``. A data frame is one
        ``pandas.DataFrame(explanation.patches)`` away.
    plan : Plan
        The scales and windows.
    patch_maps : numpy.ndarray, (K, u, v) float32, or None
        What the base method says of the K kept windows, in their order; only with ``SESS(keep_maps=True)``.
    """

    saliency: np.ndarray
    target: int
    target_name: str
    score: float
    predicted: int
    predicted_name: str
    predicted_score: float
    patches: np.ndarray
    plan: Plan
    patch_maps: np.ndarray | None = None

    @property
    def num_patches(self) -> int:
        return len(self.patches)

    @property
    def num_scored(self) -> int:
        return int(self.patches["scored"].sum())

    @property
    def num_forwards(self) -> int:
        """Windows of the image that were scored, for all of its targets together."""
        return int(np.isfinite(self.patches["score"]).sum())

    @property
    def num_kept(self) -> int:
        return int(self.patches["kept"].sum())

    @property
    def peak(self) -> tuple[int, int]:
        """(x, y) of the first maximum of the map."""
        y, x = np.unravel_index(self.saliency.argmax(), self.saliency.shape)
        return int(x), int(y)

    def plot(self, image: ImageLike) -> Figure:
        """Draw the image and its map, with matplotlib; see `sess_ray.pictures.plots.plot`."""
        from sess_ray.pictures.plots import plot

        return plot(self, image)

    def plot_patches(self, image: ImageLike, most: int = 15) -> Figure:
        """Draw the kept windows, those of highest score first; see `sess_ray.pictures.plots.plot_patches`."""
        from sess_ray.pictures.plots import plot_patches

        return plot_patches(self, image, most)


@dataclass(frozen=True)
class _Row:
    """A kept window in a batch of patches: of which image, for which of its targets, and its place among the kept."""

    work: Work
    slot: int
    window: int
    place: int


class SESS:
    """Explain images with a base saliency method inside SESS.

    Parameters
    ----------
    model : Model, nn.Module or str
        What `load_model` makes or takes. A copy is used: yours keeps its device, mode and gradients.
    method : str or Method
        A registered base method (``sess_ray.methods.names()``), or ``package.module:function`` of your own.
    num_scales : int or None
        Scales with a short side of window + 64 i pixels. None explains without SESS: the whole image resized to the
        model's input, one map, resized back; then neither filter nor fusion nor smoothing applies.
    step_size : int, optional
        Pixels between windows; by default the window's side.
    pre_filter_ratio : float, optional
        Share of the windows, those of lowest class score, that are dropped. By default the method's own
        (`sess_ray.methods.registry.RATIOS`); the paper's are 0, 0.9 and 0.99.
    windows : {"all", "guided"}
        Which windows are scored. Guided: the coarse scales whole, and of each finer one those at which the Grad-CAM map
        so far is brightest (`sess_ray.engine.guided`), whatever the method; the others count as dropped by the
        pre-filter, which keeps as many windows as of all.
    whole_scales : int
        Guided: how many scales are scored whole.
    window_share : float
        Guided: share of a finer scale's windows that is scored, 0 < share <= 1; at least one.
    fusion : {"seamless", "reference"}
        See `sess_ray.engine.fusion.fuse`. ``reference`` with ``normalize=False, smooth=False, precision="fp32"`` is the
        arithmetic of the public release of SESS.
    normalize, smooth : bool
        Min-max and Gaussian smoothing of the fused map.
    precision : {"fp32", "bf16"}
        Of the model; maps and scores are float32 in both.
    device : str or torch.device, optional
        By default ``cuda`` where there is one.
    batch_size : int, optional
        Patches in one batch, of as many images as it takes. By default 8 on a CPU and 128 on a GPU.
    max_map_side : int, optional
        Make maps whose longer side has at most this many pixels: less to fuse and keep where images are large. They
        are smoothed at their own size. By default every map has its image's size.
    max_patches : int
        Refuse images that need more windows, such as 20,000 x 30 pixels.
    seed : int
        Of methods that draw random numbers: the same seed gives the same map, whatever else is explained.
    method_options : dict, optional
        Options of the method (``sess_ray.methods.get(method).options``).
    keep_maps : bool
        Return the maps of kept windows as well.

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
        method: str | methods.Method = "gradcam",
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
    ) -> None:
        self.method = methods.get(method) if isinstance(method, str) else method
        self.method_options = self.method.parsed(method_options or {})
        ratio = self.method.ratio(pre_filter_ratio)
        _check(num_scales, step_size, ratio, whole_scales, window_share, batch_size, max_map_side)
        for name, given, known in (
            ("windows", windows, WINDOWS),
            ("fusion", fusion, FUSIONS),
            ("precision", precision, DTYPES),
        ):
            if given not in known:
                raise unknown(name, given, known)
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise SessError(f"device {str(device)!r} is not available: {str(error).split(chr(10))[0]}") from error
        self.model = load_model(model).prepared(self.device, precision)
        methods.require(self.method, self.model)
        self.looks_at = [name for name in LAYER if name in self.method.given or self.method.family == "T"]
        self.num_scales = num_scales
        self.step_size = step_size or self.model.input_size
        self.pre_filter_ratio = ratio if num_scales else 0.0
        self.windows = windows if num_scales else "all"
        self.guides = self.windows == "guided"
        self.whole_scales = whole_scales
        self.window_share = window_share
        self.fusion = fusion
        self.normalize = normalize
        self.smooth = smooth and num_scales is not None
        self.batch_size = batch_size or BATCH_SIZES.get(self.device.type, BATCH_SIZES["cuda"])
        self.max_map_side = max_map_side
        self.max_patches = max_patches
        self.seed = seed
        self.keep_maps = keep_maps
        self.dtype = DTYPES[precision]
        self.normalizer = Normalizer(self.model.mean, self.model.std, self.device)

    def plan(self, height: int, width: int) -> Plan:
        """Return the windows of an image of this size; `SessError` where they are more than `max_patches`."""
        side = self.model.input_size
        if self.num_scales is None:
            return self._limited(whole_plan(height, width, side))
        if max(height, width) / max(1, min(height, width)) > self.max_patches:  # do not even count them
            raise SessError(f"an image of {width} x {height} pixels needs more than {self.max_patches} windows")
        plan = sess_plan(height, width, side, self.num_scales, self.step_size)
        if plan.num_patches > self.max_patches:
            raise SessError(
                f"an image of {width} x {height} pixels needs {plan.num_patches} windows,"
                f" more than the {self.max_patches} that max_patches allows"
            )
        return self._limited(plan)

    def _limited(self, plan: Plan) -> Plan:
        height, width = fitted(plan.height, plan.width, self.max_map_side)
        return replace(plan, height=height, width=width)

    def num_scored(self, plan: Plan) -> int:
        """Return how many windows of a plan are scored for one target; for several targets as many or more."""
        if not self.guides:
            return plan.num_patches
        return least_scored(plan, self.whole_scales, self.window_share)

    def explain(
        self, images: Sequence[ImageLike], targets: str | Sequence[TargetSpec] = "top1"
    ) -> list[list[Explanation]]:
        """Explain images.

        Parameters
        ----------
        images : sequence of PIL images or (H, W, 3) uint8 arrays
            RGB, of any sizes.
        targets : str or sequence
            ``"top1"``, ``"top5"`` ... for the classes of highest score on the whole image, or for each image its class
            indices, such as ``[[948], [553, 235]]``. Indices in place of one, ``[[948], [(281, 282), 235]]``, are
            alternatives: that of highest score on the whole image is explained.

        Returns
        -------
        list of list of Explanation
            For each image, one for each of its targets.

        Raises
        ------
        SessError
            If an image has no pixels or needs more windows than `max_patches`, or a target is no class of the model.
        """
        specs = [targets] * len(images) if isinstance(targets, str) else list(targets)
        if len(specs) != len(images):
            raise SessError(f"{len(specs)} targets for {len(images)} images: give one entry an image")
        results: list[list[Explanation]] = [[] for _ in images]
        for index, explanations in self.stream(zip(images, specs, strict=True)):
            results[index] = explanations
        return results

    def stream(self, images: Iterable[tuple[ImageLike, TargetSpec]]) -> Iterator[tuple[int, list[Explanation]]]:
        """Explain (image, targets) pairs one after the other, as `explain` does, without holding them all.

        Yields
        ------
        (int, list of Explanation)
            Position in `images`, in ascending order, as soon as the image's last window is scored.
        """
        works = self._scored(self._start(*item) for item in enumerate(images))
        if self.method.family != "T":
            works = self._extracted(works)
        for work in works:
            yield work.index, self._finish(work)

    def _start(self, index: int, item: tuple[ImageLike, TargetSpec]) -> Work:
        image, spec = item
        array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            raise SessError(f"image {index} is {array.dtype} {array.shape}: give PIL images or (H, W, 3) uint8 arrays")
        plan = self.plan(*array.shape[:2])
        spec = self._checked(spec)
        array = array if array.flags.writeable else array.copy()
        pixels = torch.from_numpy(array).to(self.device).permute(2, 0, 1)
        work = Work(index, Source(pixels, self.normalizer), plan, self.num_scales is None, spec)
        work.turns = self._turns(work)
        return work

    def _checked(self, spec: TargetSpec) -> str | list[tuple[int, ...]]:
        """Return a target as "topK" or a list of alternatives, or say what is wrong with it."""
        if isinstance(spec, str):
            if not is_top(spec):
                raise SessError(f"targets {spec!r}: use top1, top5 ... or class indices")
            return f"top{min(int(spec[3:]), self.model.num_classes)}"
        wanted = [
            (entry,) if isinstance(entry, int | np.integer) else tuple(entry)
            for entry in ([spec] if isinstance(spec, int | np.integer) else spec)
        ]
        if not wanted or not all(wanted):
            raise SessError("an image without targets: give at least one class index")
        return [tuple(self.model.class_index(int(target)) for target in entry) for entry in wanted]

    def _turns(self, work: Work) -> Iterator[list[int]]:
        """Yield the windows to score, turn by turn. What is chosen for a target does not depend on the others."""
        plan = work.plan
        if self.windows == "all":
            yield list(range(plan.num_patches))
            return
        scales = plan.slices()
        yield list(range(scales[: self.whole_scales][-1].stop))
        guides = [Guide(plan) for _ in work.targets]
        for number, scale in enumerate(scales):
            if number >= self.whole_scales:
                for slot, guide in enumerate(guides):
                    best = guide.best(number, self.window_share)
                    work.chosen[slot, [scale.start + place for place in best]] = True
                yield (work.chosen[:, scale].any(0).nonzero()[:, 0] + scale.start).tolist()
            for slot, guide in enumerate(guides):
                chosen = work.chosen[slot, scale]
                where = chosen.to(self.device)
                guide.add(number, work.guides[slot][scale][where], work.scores[slot, scale][where], chosen)

    def _scored(self, works: Iterator[Work]) -> Iterator[Work]:
        """Score windows, and with methods of family T make their maps; yield images in their order."""
        waiting: deque[Work] = deque()

        def started() -> Iterator[Work]:
            for work in works:
                waiting.append(work)
                yield work

        for patches, segments in batches(started(), self._buffer()):
            self._score(self.model.tap(patches), segments)
            for segment in segments:
                segment.work.done(segment.count)
            while waiting and waiting[0].scored:
                work = waiting.popleft()
                marks = work.chosen.to(self.device)
                work.kept = [
                    keep(scores, self.pre_filter_ratio, chosen)
                    for scores, chosen in zip(work.scores, marks, strict=True)
                ]
                yield work

    def _extracted(self, works: Iterator[Work]) -> Iterator[Work]:
        """Make the maps of kept windows by a method that wants the patches themselves, many images' in one batch."""
        buffer = self._buffer()
        rows: list[_Row] = []
        waiting: deque[Work] = deque()
        for work in works:
            waiting.append(work)
            work.missing = sum(int(kept.sum()) for kept in work.kept)
            for row, patch in self._kept(work):
                buffer[len(rows)].copy_(patch)
                rows.append(row)
                if len(rows) == self.batch_size:
                    self._extract(buffer, rows)
                    rows = []
            while waiting and not waiting[0].missing:
                yield waiting.popleft()
        if rows:
            self._extract(buffer[: len(rows)], rows)
        yield from waiting

    def _kept(self, work: Work) -> Iterator[tuple[_Row, Tensor]]:
        """Yield every kept window once for each target that keeps it."""
        kept = torch.stack(work.kept).cpu()
        places = kept.cumsum(1) - 1
        wanted = kept.any(0)
        windows = wanted.nonzero()[:, 0].tolist()
        for window, patch in zip(windows, cut(work.source, work.plan, wanted.tolist()), strict=True):
            for slot in kept[:, window].nonzero()[:, 0].tolist():
                yield _Row(work, slot, window, int(places[slot, window])), patch

    def _extract(self, patches: Tensor, rows: list[_Row]) -> None:
        targets = torch.tensor([row.work.targets[row.slot] for row in rows], device=self.device)
        offers: dict[str, object] = {"seed": self.seed, "batch_size": self.batch_size}
        if "scores" in self.method.given:
            offers["scores"] = torch.stack([row.work.scores[row.slot, row.window] for row in rows])
        if self.looks_at:
            offers |= self._layer(patches, targets, rows)
        if "same_as" in self.method.given:
            offers["same_as"] = _same_as(rows).to(self.device)
        if "generators" in self.method.given:
            offers["generators"] = [self._generator(row.window) for row in rows]
        given = {name: offers[name] for name in self.method.given}
        maps = self.method.function(self.model, patches, targets, **given, **self.method_options).detach().float()
        for row, found in zip(rows, maps, strict=True):
            if row.slot not in row.work.maps:
                count = int(row.work.kept[row.slot].sum())
                row.work.maps[row.slot] = found.new_empty(count, *found.shape)
            row.work.maps[row.slot][row.place] = found
            row.work.missing -= 1

    def _layer(self, patches: Tensor, targets: Tensor, rows: list[_Row]) -> dict[str, Tensor]:
        """Return what the method asks for of the layer: kept from the scoring pass, or made again."""
        kept = [row.work.layer.pop((row.slot, row.window), None) for row in rows]
        if all(values is not None for values in kept):
            return dict(zip(self.looks_at, map(torch.stack, zip(*kept, strict=True)), strict=True))  # type: ignore[arg-type]
        return _of_layer(self.model.tap(patches), targets, slice(None), self.looks_at)

    def _generator(self, window: int) -> torch.Generator:
        """Return a patch's random numbers: the same in any batch, on any actor."""
        [state] = np.random.SeedSequence([self.seed, window]).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state >> 1))

    def _buffer(self) -> Tensor:
        side = self.model.input_size
        buffer = torch.empty(self.batch_size, 3, side, side, dtype=self.dtype, device=self.device)
        return buffer.contiguous(memory_format=torch.channels_last)

    def _score(self, tap: Tap, segments: list[Segment]) -> None:
        """Take the scores, and with methods of family T the maps, of a batch into the images that it is made of."""
        probabilities = tap.logits.softmax(1)
        for segment in segments:
            if segment.whole is not None:
                self._meet(segment.work, probabilities[segment.whole])
        for slot in range(max(len(segment.work.targets) for segment in segments)):
            classes = torch.zeros(len(probabilities), dtype=torch.int64)
            active = [segment for segment in segments if slot < len(segment.work.targets)]
            for segment in active:
                classes[segment.rows] = segment.work.targets[slot]
            classes = classes.to(self.device)
            scores = probabilities.gather(1, classes[:, None])[:, 0]
            for segment in active:
                segment.work.scores[slot, segment.places] = scores[segment.rows]
            if self.looks_at or self.guides:
                self._look(tap, classes, slot, active)

    def _meet(self, work: Work, probabilities: Tensor) -> None:
        """Learn what the model says of the whole image, and so which classes to explain."""
        work.probabilities = probabilities
        if isinstance(work.spec, str):
            work.targets = probabilities.topk(int(work.spec[3:])).indices.tolist()
        else:
            score = probabilities.tolist()
            work.targets = [max(entry, key=score.__getitem__) for entry in work.spec]
        size = len(work.targets), work.plan.num_patches
        work.scores = torch.zeros(size, device=self.device)
        work.chosen = torch.zeros(size, dtype=torch.bool)
        work.chosen[:, work.turn] = True

    def _look(self, tap: Tap, classes: Tensor, slot: int, active: list[Segment]) -> None:
        """Take what is wanted of the layer, for windows that may survive the pre-filter, or that guide.

        Methods of family T make their maps of it at once; for the others it is remembered.
        """
        chosen = [self._promising(segment, slot) for segment in active]
        rows = torch.cat([segment.first + own for segment, own in zip(active, chosen, strict=True)])
        if not len(rows):
            return
        where = slice(None) if len(rows) == len(classes) else rows  # all: nothing needs to be copied
        names = LAYER if self.guides else self.looks_at
        values = _of_layer(tap, classes, where, names)
        found: list[tuple[Callable[..., None], list[Tensor]]] = []
        if self.guides:
            found.append((partial(_place, "guides"), [gradcam(*values.values())]))
        if self.method.family == "T":
            found.append((partial(_place, "maps"), [self.method.function(*values.values(), **self.method_options)]))
        elif self.looks_at:
            found.append((self._remember, [values[name] for name in self.looks_at]))
        for take, taken in found:
            parts = zip(*(value.split([len(own) for own in chosen]) for value in taken), strict=True)
            for segment, own, part in zip(active, chosen, parts, strict=True):
                if len(own):
                    take(segment.work, slot, segment.places[own], part)

    def _remember(self, work: Work, slot: int, windows: Tensor, values: tuple[Tensor, ...]) -> None:
        few = num_kept(work.plan.num_patches, self.pre_filter_ratio)
        held = few if self.device.type == "cpu" else work.plan.num_patches
        if held * len(work.targets) * sum(value[0].nbytes for value in values) > LAYER_BYTES:
            return
        for window, *own in zip(windows.tolist(), *values, strict=True):
            work.layer[slot, window] = tuple(value.clone() for value in own)
        if self.device.type == "cpu":
            scores = work.scores[slot].tolist()
            ranked = sorted((scores[window], window) for at, window in work.layer if at == slot)
            for _, window in ranked[:-few]:
                del work.layer[slot, window]

    def _promising(self, segment: Segment, slot: int) -> Tensor:
        """Return which of a segment's windows are among the best so far, as many as the pre-filter keeps.

        On a GPU all of them: to wait for the scores would cost more than the maps. Where maps guide, all that the
        target has chosen.
        """
        work, count = segment.work, len(segment.windows)
        if self.guides:
            return work.chosen[slot, segment.windows].nonzero()[:, 0].to(self.device)
        own = torch.arange(count, device=self.device)
        if not count or not self.pre_filter_ratio or self.device.type != "cpu":
            return own
        seen = work.scores[slot, : segment.windows[-1] + 1]
        bar = seen.topk(min(num_kept(work.plan.num_patches, self.pre_filter_ratio), len(seen))).values[-1]
        return own[~(seen[-count:] < bar)]

    def _finish(self, work: Work) -> list[Explanation]:
        if not work.probabilities.isfinite().all():
            raise SessError("the model gives scores that are not finite")
        predicted = int(work.probabilities.argmax())
        explanations = []
        for slot, target in enumerate(work.targets):
            scores, kept, maps = work.scores[slot], work.kept[slot], work.maps[slot]
            scored = work.chosen[slot].to(self.device)
            if self.method.family == "T":
                maps = maps[kept]
            saliency = fuse(
                work.plan,
                maps,
                scores.where(scored, 0),
                kept,
                fusion=self.fusion,
                normalize=self.normalize,
                smooth=self.smooth,
            )
            explanations.append(
                Explanation(
                    saliency=saliency.cpu().numpy(),
                    target=target,
                    target_name=self.model.class_name(target),
                    score=float(work.probabilities[target]),
                    predicted=predicted,
                    predicted_name=self.model.class_name(predicted),
                    predicted_score=float(work.probabilities[predicted]),
                    patches=_patch_table(work, slot),
                    plan=work.plan,
                    patch_maps=maps.cpu().numpy() if self.keep_maps else None,
                )
            )
        return explanations


def _same_as(rows: Sequence[_Row]) -> Tensor:
    """Return for each row the first that holds the same window of the same image."""
    first: dict[tuple[int, int], int] = {}
    return torch.tensor([first.setdefault((row.work.index, row.window), number) for number, row in enumerate(rows)])


def _of_layer(tap: Tap, classes: Tensor, rows: Tensor | slice, names: Sequence[str]) -> dict[str, Tensor]:
    """Return activations, gradients or both of some rows of a batch."""
    return {name: tap.activations[rows] if name == "activations" else tap.gradients(classes, rows) for name in names}


def _place(kind: str, work: Work, slot: int, windows: Tensor, values: tuple[Tensor, ...]) -> None:
    """Put maps of some windows among those of all."""
    [maps] = values
    held: dict[int, Tensor] = getattr(work, kind)
    if slot not in held:
        held[slot] = maps.new_zeros(work.plan.num_patches, *maps.shape[1:])
    held[slot][windows] = maps


def is_top(spec: str) -> bool:
    """Say whether a target reads top1, top5, ..."""
    return spec.startswith("top") and spec[3:].isdigit() and int(spec[3:]) > 0


def _check(
    num_scales: int | None,
    step_size: int | None,
    pre_filter_ratio: float,
    whole_scales: int,
    window_share: float,
    batch_size: int | None,
    max_map_side: int | None,
) -> None:
    if num_scales is not None and num_scales < 1:
        raise SessError(f"num_scales is {num_scales}: use 1 or more, or None for no SESS")
    if step_size is not None and step_size < 1:
        raise SessError(f"step_size is {step_size}: use 1 pixel or more")
    if not 0 <= pre_filter_ratio <= 1:
        raise SessError(f"pre_filter_ratio is {pre_filter_ratio}: use a share from 0 to 1")
    if whole_scales < 1:
        raise SessError(f"whole_scales is {whole_scales}: use 1 or more")
    if not 0 < window_share <= 1:
        raise SessError(f"window_share is {window_share}: use a share above 0, at most 1")
    if batch_size is not None and batch_size < 1:
        raise SessError(f"batch_size is {batch_size}: use 1 or more")
    if max_map_side is not None and max_map_side < 1:
        raise SessError(f"max_map_side is {max_map_side}: use 1 pixel or more")


def _patch_table(work: Work, slot: int) -> np.ndarray:
    table = np.empty(work.plan.num_patches, PATCH_DTYPE)
    positions = np.array(work.plan.positions())
    table["scale"], table["y"], table["x"] = positions.T
    table["score"] = np.where(work.chosen.any(0), work.scores[slot].cpu(), np.nan)
    table["scored"] = work.chosen[slot]
    table["kept"] = work.kept[slot].cpu()
    return table
