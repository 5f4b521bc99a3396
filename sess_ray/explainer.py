"""SESS: windows of many images through one scoring pass, their maps fused image by image.

Tursun et al., "SESS: Saliency Enhancing with Scaling and Sliding", ECCV 2022.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sess_ray import methods
from sess_ray.errors import SessError, unknown
from sess_ray.fusion import FUSIONS, fuse, keep, num_kept
from sess_ray.models import Model, load_model
from sess_ray.models.model import DTYPES, Precision, Tap
from sess_ray.patches import Normalizer, Source, cut, resized
from sess_ray.windows import Plan, sess_plan, whole_plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ImageLike = Image.Image | np.ndarray
TargetSpec = str | int | Sequence[int | Sequence[int]]

PATCH_DTYPE = np.dtype([("scale", "i4"), ("y", "i4"), ("x", "i4"), ("score", "f4"), ("kept", "?")])
# On a CPU a small batch stays in the cache; a GPU wants to be full.
BATCH_SIZES = {"cpu": 8, "cuda": 128}
# What an image may keep of its scoring pass for methods that look at the layer; what needs more is computed again.
LAYER_BYTES = 1 << 28


@dataclass(frozen=True)
class Explanation:
    """One saliency map, of one image for one class.

    Attributes
    ----------
    saliency : numpy.ndarray, (H, W) float32
        At the image's own size, in 0..1.
    target : int
        Class explained.
    target_name : str
    score : float
        Softmax probability of the target on the whole image, resized to the model's input.
    predicted, predicted_name, predicted_score : int, str, float
        Top class on the whole image.
    patches : numpy.ndarray, (P,) structured
        Every window: ``scale`` (index), ``y``, ``x`` (in pixels of the scaled image), ``score`` (probability of the
        target), ``kept``. A data frame is one ``pandas.DataFrame(explanation.patches)`` away.
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
    def num_kept(self) -> int:
        return int(self.patches["kept"].sum())

    @property
    def peak(self) -> tuple[int, int]:
        """(x, y) of the first maximum of the map."""
        y, x = np.unravel_index(self.saliency.argmax(), self.saliency.shape)
        return int(x), int(y)

    def plot(self, image: ImageLike) -> Figure:
        """Draw the image and its map, with matplotlib; see `sess_ray.gallery.plots.plot`."""
        from sess_ray.gallery.plots import plot

        return plot(self, image)

    def plot_patches(self, image: ImageLike, most: int = 15) -> Figure:
        """Draw the kept windows, those of highest score first; see `sess_ray.gallery.plots.plot_patches`."""
        from sess_ray.gallery.plots import plot_patches

        return plot_patches(self, image, most)


@dataclass
class _Work:
    """An image on its way through the scoring pass. Row 0 of its windows is the whole image, resized."""

    index: int
    source: Source
    plan: Plan
    whole_is_patch: bool
    spec: str | list[tuple[int, ...]]
    probabilities: Tensor = field(default_factory=lambda: torch.empty(0))
    targets: list[int] = field(default_factory=list)
    scores: Tensor = field(default_factory=lambda: torch.empty(0))
    kept: list[Tensor] = field(default_factory=list)
    layer: dict[tuple[int, int], tuple[Tensor, ...]] = field(default_factory=dict)  # of (place in targets, window)
    maps: dict[int, Tensor] = field(default_factory=dict)  # by place in targets; family T of all windows, else of kept
    seen: int = 0
    missing: int = 0

    @property
    def rows(self) -> int:
        return self.plan.num_patches + (not self.whole_is_patch)


@dataclass(frozen=True)
class _Segment:
    """Rows first..first + count of a batch, which are windows of one image, the first being its window `start`."""

    work: _Work
    first: int
    count: int
    start: int

    @property
    def windows(self) -> slice:
        """Rows of the batch that are windows of the plan; the whole image may be in front of them."""
        return slice(self.first + (self.start == 0 and not self.work.whole_is_patch), self.first + self.count)

    @property
    def shift(self) -> int:
        """What turns a row of the batch into a window of the plan."""
        return self.start - self.first - (not self.work.whole_is_patch)


@dataclass(frozen=True)
class _Row:
    """A kept window in a batch of patches: of which image, for which of its targets, and its place among the kept."""

    work: _Work
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
    pre_filter_ratio : float
        Share of the windows, those of lowest class score, that are dropped.
    fusion : {"seamless", "reference"}
        See `sess_ray.fusion.fuse`. ``reference`` with ``normalize=False, smooth=False, precision="fp32"`` is the
        arithmetic of the public release of SESS.
    normalize, smooth : bool
        Min-max and Gaussian smoothing of the fused map.
    precision : {"fp32", "bf16"}
        Of the model; maps and scores are float32 in both.
    device : str or torch.device, optional
        By default ``cuda`` where there is one.
    batch_size : int, optional
        Patches in one batch, of as many images as it takes. By default 8 on a CPU and 128 on a GPU.
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
    ((240, 320), 'cock', 6, 1)
    """

    def __init__(
        self,
        model: Model | nn.Module | str,
        method: str | methods.Method = "gradcam",
        num_scales: int | None = 12,
        step_size: int | None = None,
        pre_filter_ratio: float = 0.9,
        fusion: str = "seamless",
        normalize: bool = True,
        smooth: bool = True,
        precision: Precision = "fp32",
        device: str | torch.device | None = None,
        batch_size: int | None = None,
        max_patches: int = 5000,
        seed: int = 0,
        method_options: Mapping[str, object] | None = None,
        keep_maps: bool = False,
    ) -> None:
        self.method = methods.get(method) if isinstance(method, str) else method
        self.method_options = self.method.parsed(method_options or {})
        if num_scales is not None and num_scales < 1:
            raise SessError(f"num_scales is {num_scales}: use 1 or more, or None for no SESS")
        if step_size is not None and step_size < 1:
            raise SessError(f"step_size is {step_size}: use 1 pixel or more")
        if not 0 <= pre_filter_ratio <= 1:
            raise SessError(f"pre_filter_ratio is {pre_filter_ratio}: use a share from 0 to 1")
        if fusion not in FUSIONS:
            raise unknown("fusion", fusion, FUSIONS)
        if precision not in DTYPES:
            raise unknown("precision", precision, DTYPES)
        if batch_size is not None and batch_size < 1:
            raise SessError(f"batch_size is {batch_size}: use 1 or more")
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise SessError(f"device {str(device)!r} is not available: {str(error).split(chr(10))[0]}") from error
        self.model = load_model(model).prepared(self.device, precision)
        methods.require(self.method, self.model)
        layer = ("activations", "gradients")
        self.looks_at = [name for name in layer if name in self.method.given or self.method.family == "T"]
        self.num_scales = num_scales
        self.step_size = step_size or self.model.input_size
        self.pre_filter_ratio = pre_filter_ratio if num_scales else 0.0
        self.fusion = fusion
        self.normalize = normalize
        self.smooth = smooth and num_scales is not None
        self.batch_size = batch_size or BATCH_SIZES.get(self.device.type, BATCH_SIZES["cuda"])
        self.max_patches = max_patches
        self.seed = seed
        self.keep_maps = keep_maps
        self.dtype = DTYPES[precision]
        self.normalizer = Normalizer(self.model.mean, self.model.std, self.device)

    def plan(self, height: int, width: int) -> Plan:
        """Return the windows of an image of this size; `SessError` where they are more than `max_patches`."""
        side = self.model.input_size
        if self.num_scales is None:
            return whole_plan(height, width, side)
        if max(height, width) / max(1, min(height, width)) > self.max_patches:  # do not even count them
            raise SessError(f"an image of {width} x {height} pixels needs more than {self.max_patches} windows")
        plan = sess_plan(height, width, side, self.num_scales, self.step_size)
        if plan.num_patches > self.max_patches:
            raise SessError(
                f"an image of {width} x {height} pixels needs {plan.num_patches} windows,"
                f" more than the {self.max_patches} that max_patches allows"
            )
        return plan

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

    def _start(self, index: int, item: tuple[ImageLike, TargetSpec]) -> _Work:
        image, spec = item
        array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            raise SessError(f"image {index} is {array.dtype} {array.shape}: give PIL images or (H, W, 3) uint8 arrays")
        plan = self.plan(*array.shape[:2])
        spec = self._checked(spec)
        array = array if array.flags.writeable else array.copy()
        pixels = torch.from_numpy(array).to(self.device).permute(2, 0, 1)
        return _Work(index, Source(pixels, self.normalizer), plan, self.num_scales is None, spec)

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

    def _scored(self, works: Iterator[_Work]) -> Iterator[_Work]:
        """Score all windows, and with methods of family T make their maps."""
        for patches, segments in self._batches(works):
            tap = self.model.tap(patches)
            self._score(tap, segments)
            for segment in segments:
                work = segment.work
                if work.seen == work.rows:
                    work.kept = [keep(scores, self.pre_filter_ratio) for scores in work.scores]
                    yield work

    def _extracted(self, works: Iterator[_Work]) -> Iterator[_Work]:
        """Make the maps of kept windows by a method that wants the patches themselves, many images' in one batch."""
        buffer = self._buffer()
        rows: list[_Row] = []
        waiting: deque[_Work] = deque()
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

    def _kept(self, work: _Work) -> Iterator[tuple[_Row, Tensor]]:
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
        values = self._of_layer(self.model.tap(patches), targets, slice(None))
        return dict(zip(self.looks_at, values, strict=True))

    def _of_layer(self, tap: Tap, classes: Tensor, rows: Tensor | slice) -> list[Tensor]:
        """Return activations, gradients or both of some rows of a batch, as the method looks at them."""
        return [
            tap.activations[rows] if name == "activations" else tap.gradients(classes, rows) for name in self.looks_at
        ]

    def _generator(self, window: int) -> torch.Generator:
        """Return a patch's random numbers: the same in any batch, on any actor."""
        [state] = np.random.SeedSequence([self.seed, window]).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state >> 1))

    def _buffer(self) -> Tensor:
        side = self.model.input_size
        buffer = torch.empty(self.batch_size, 3, side, side, dtype=self.dtype, device=self.device)
        return buffer.contiguous(memory_format=torch.channels_last)

    def _batches(self, works: Iterator[_Work]) -> Iterator[tuple[Tensor, list[_Segment]]]:
        """Fill batches with the windows of one image after the other."""
        buffer = self._buffer()
        segments: list[_Segment] = []
        filled = 0
        for work in works:
            first, start = filled, 0
            for row, patch in enumerate(self._windows(work)):
                buffer[filled].copy_(patch)
                filled += 1
                if filled == self.batch_size:
                    yield buffer, [*segments, _Segment(work, first, filled - first, start)]
                    segments, filled, first, start = [], 0, 0, row + 1
            if filled > first:
                segments.append(_Segment(work, first, filled - first, start))
        if filled:
            yield buffer[:filled], segments

    def _windows(self, work: _Work) -> Iterator[Tensor]:
        if not work.whole_is_patch:
            side = self.model.input_size
            yield resized(work.source, side, side)(0, side).permute(2, 0, 1)
        yield from cut(work.source, work.plan)

    def _score(self, tap: Tap, segments: list[_Segment]) -> None:
        """Take the scores, and with methods of family T the maps, of a batch into the images that it is made of."""
        probabilities = tap.logits.softmax(1)
        for segment in segments:
            segment.work.seen += segment.count
            if segment.start == 0:
                self._meet(segment.work, probabilities[segment.first])
        for slot in range(max(len(segment.work.targets) for segment in segments)):
            classes = torch.zeros(len(probabilities), dtype=torch.int64)
            active = [segment for segment in segments if slot < len(segment.work.targets)]
            for segment in active:
                classes[segment.first : segment.first + segment.count] = segment.work.targets[slot]
            classes = classes.to(self.device)
            scores = probabilities.gather(1, classes[:, None])[:, 0]
            for segment in active:
                rows = segment.windows
                segment.work.scores[slot, rows.start + segment.shift : rows.stop + segment.shift] = scores[rows]
            if self.looks_at:
                self._look(tap, classes, slot, active)

    def _meet(self, work: _Work, probabilities: Tensor) -> None:
        """Learn what the model says of the whole image, and so which classes to explain."""
        work.probabilities = probabilities
        if isinstance(work.spec, str):
            work.targets = probabilities.topk(int(work.spec[3:])).indices.tolist()
        else:
            score = probabilities.tolist()
            work.targets = [max(entry, key=score.__getitem__) for entry in work.spec]
        work.scores = torch.empty(len(work.targets), work.plan.num_patches, device=self.device)

    def _look(self, tap: Tap, classes: Tensor, slot: int, active: list[_Segment]) -> None:
        """Take what is wanted of the layer, for windows that may survive the pre-filter.

        Methods of family T make their maps of it at once; for the others it is remembered.
        """
        chosen = [self._promising(segment, slot) for segment in active]
        rows = torch.cat(chosen)
        if not len(rows):
            return
        where = slice(None) if len(rows) == len(classes) else rows  # all: nothing needs to be copied
        values = self._of_layer(tap, classes, where)
        take = self._remember
        if self.method.family == "T":
            values, take = [self.method.function(*values, **self.method_options)], self._map
        parts = zip(*(value.split([len(own) for own in chosen]) for value in values), strict=True)
        for segment, own, part in zip(active, chosen, parts, strict=True):
            if len(own):
                take(segment.work, slot, own + segment.shift, part)

    def _map(self, work: _Work, slot: int, windows: Tensor, values: tuple[Tensor, ...]) -> None:
        [maps] = values
        if slot not in work.maps:
            work.maps[slot] = maps.new_zeros(work.plan.num_patches, *maps.shape[1:])
        work.maps[slot][windows] = maps

    def _remember(self, work: _Work, slot: int, windows: Tensor, values: tuple[Tensor, ...]) -> None:
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

    def _promising(self, segment: _Segment, slot: int) -> Tensor:
        """Return the rows of a segment whose windows are among the best so far, as many as the pre-filter keeps.

        On a GPU all of them: to wait for the scores would cost more than the maps.
        """
        rows = torch.arange(segment.windows.start, segment.windows.stop, device=self.device)
        if not len(rows) or not self.pre_filter_ratio or self.device.type != "cpu":
            return rows
        work = segment.work
        seen = work.scores[slot, : segment.windows.stop + segment.shift]
        bar = seen.topk(min(num_kept(work.plan.num_patches, self.pre_filter_ratio), len(seen))).values[-1]
        return rows[~(seen[-len(rows) :] < bar)]

    def _finish(self, work: _Work) -> list[Explanation]:
        if not work.probabilities.isfinite().all():
            raise SessError("the model gives scores that are not finite")
        predicted = int(work.probabilities.argmax())
        explanations = []
        for slot, target in enumerate(work.targets):
            scores, kept, maps = work.scores[slot], work.kept[slot], work.maps[slot]
            if self.method.family == "T":
                maps = maps[kept]
            saliency = fuse(
                work.plan, maps, scores, kept, fusion=self.fusion, normalize=self.normalize, smooth=self.smooth
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
                    patches=_patch_table(work.plan, scores, kept),
                    plan=work.plan,
                    patch_maps=maps.cpu().numpy() if self.keep_maps else None,
                )
            )
        return explanations


def is_top(spec: str) -> bool:
    """Say whether a target reads top1, top5, ..."""
    return spec.startswith("top") and spec[3:].isdigit() and int(spec[3:]) > 0


def _patch_table(plan: Plan, scores: Tensor, kept: Tensor) -> np.ndarray:
    table = np.empty(plan.num_patches, PATCH_DTYPE)
    positions = np.array(plan.positions())
    table["scale"], table["y"], table["x"] = positions.T
    table["score"] = scores.cpu().numpy()
    table["kept"] = kept.cpu().numpy()
    return table
