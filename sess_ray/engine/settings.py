"""How to explain: the arguments of `SESS`, checked and resolved once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch

from sess_ray.engine.fusion import FUSIONS
from sess_ray.engine.guided import least_scored
from sess_ray.errors import SessError, unknown
from sess_ray.methods import Method
from sess_ray.windows import Plan, Size, fitted, sess_plan, sides, whole_plan

SMALL_BATCH = 8  # stays in a CPU's cache
# A GPU needs a large batch, or it waits for the host that launches its kernels (docs/speed.md).
BATCH_PIXELS, LARGEST_BATCH = 256 * 224 * 224, 1024
WINDOWS = ("all", "guided")


def default_batch_size(device: torch.device, window: Size) -> int:
    """Return the default number of patches in a batch: on a GPU a power of two that takes alike memory for all windows.

    >>> [default_batch_size(torch.device("cuda"), side) for side in (32, 224, 260, 384, (256, 128))]
    [1024, 256, 128, 64, 256]
    """
    if device.type == "cpu":
        return SMALL_BATCH
    count = min(max(1, BATCH_PIXELS // prod(sides(window))), LARGEST_BATCH)
    return 1 << (count.bit_length() - 1)


MOST_SCALES = 1000  # 64,000 pixels a side; beyond that, even counting the windows would take too long


@dataclass(frozen=True)
class Settings:
    """The parameters of `SESS`, with everything filled in that depends on the model and the device.

    Attributes
    ----------
    window : int or (int, int)
        Side of a window, or its height and width: the model's input size.
    step_size : int or None
        None: the window's height down, and its width across.
    dtype : torch.dtype
        Type of the model's weights and input.
    tf32 : bool
        Whether a GPU may round the factors of float32 products.

    The others are `SESS`'s parameters.

    Raises
    ------
    SessError
        If a value is out of its range; one line names it.
    """

    method: Method
    method_options: dict[str, Any]
    window: Size
    num_scales: int | None
    step_size: int | None
    pre_filter_ratio: float
    windows: str
    whole_scales: int
    window_share: float
    fusion: str
    normalize: bool
    smooth: bool
    dtype: torch.dtype
    tf32: bool
    device: torch.device
    batch_size: int
    max_map_side: int | None
    max_patches: int
    seed: int
    keep_maps: bool
    fade: float

    def __post_init__(self) -> None:
        for name, value, fits, wanted in (
            (
                "num_scales",
                self.num_scales,
                self.num_scales is None or 1 <= self.num_scales <= MOST_SCALES,
                f"1 to {MOST_SCALES}, or None for no SESS",
            ),
            ("step_size", self.step_size, self.step_size is None or self.step_size >= 1, "1 pixel or more"),
            ("pre_filter_ratio", self.pre_filter_ratio, 0 <= self.pre_filter_ratio <= 1, "a share from 0 to 1"),
            ("fade", self.fade, 0 <= self.fade <= 0.5, "a share of a window's side from 0 to 0.5"),
            ("whole_scales", self.whole_scales, self.whole_scales >= 1, "1 or more"),
            ("window_share", self.window_share, 0 < self.window_share <= 1, "a share above 0, at most 1"),
            ("batch_size", self.batch_size, self.batch_size >= 1, "1 or more"),
            ("max_map_side", self.max_map_side, self.max_map_side is None or self.max_map_side >= 1, "1 pixel or more"),
        ):
            if not fits:
                raise SessError(f"{name} is {value}: use {wanted}")
        for name, given, known in (("windows", self.windows, WINDOWS), ("fusion", self.fusion, FUSIONS)):
            if given not in known:
                raise unknown(name, given, known)
        if self.fade and self.fusion == "reference":
            raise SessError(f"fade is {self.fade} and fusion is reference, which has none: leave out one of the two")

    @property
    def ratio(self) -> float:
        """Share of the windows that the pre-filter drops; 0 without SESS."""
        return self.pre_filter_ratio if self.num_scales else 0.0

    @property
    def fades(self) -> float:
        """Share of their side over which windows fade; 0 without SESS."""
        return self.fade if self.num_scales else 0.0

    @property
    def guides(self) -> bool:
        """Whether the maps so far decide which windows of finer scales are scored."""
        return self.windows == "guided" and self.num_scales is not None

    @property
    def smooths(self) -> bool:
        """Whether the fused map is smoothed; never without SESS."""
        return self.smooth and self.num_scales is not None

    @property
    def pulls(self) -> bool:
        """Whether a gradient of the scoring pass is needed."""
        return self.guides or self.method.pulls

    def plan(self, height: int, width: int) -> Plan:
        """Return the windows of an image of this size; `SessError` if there are more than `max_patches`."""
        if self.num_scales is None:
            return self._limited(whole_plan(height, width, self.window))
        down, across = sides(self.window)
        shorter, longer = sorted((height * across, width * down))  # how often a window goes into the image, as a ratio
        if shorter and longer / shorter > self.max_patches:  # do not even count them
            raise SessError(f"an image of {width} x {height} pixels needs more than {self.max_patches} windows")
        plan = sess_plan(height, width, self.window, self.num_scales, self.step_size)
        if plan.num_patches > self.max_patches:
            raise SessError(
                f"an image of {width} x {height} pixels needs {plan.num_patches} windows,"
                f" more than the {self.max_patches} that max_patches allows"
            )
        return self._limited(plan)

    def _limited(self, plan: Plan) -> Plan:
        height, width = fitted(plan.height, plan.width, self.max_map_side)
        return replace(plan, height=height, width=width, fade=self.fades)

    def num_scored(self, plan: Plan) -> int:
        """Return how many windows of a plan are scored for one target; several targets may take more."""
        if not self.guides:
            return plan.num_patches
        return least_scored(plan, self.whole_scales, self.window_share)
