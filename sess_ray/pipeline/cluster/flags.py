"""What the flags of all commands share: the groups of `--help`, and the ranges of numbers."""

from __future__ import annotations

from collections.abc import Mapping

from cyclopts import Group, Parameter

from sess_ray.errors import SessError

_TITLES = (
    "Input",
    "Model",
    "Targets",
    "Method",
    "Windows",
    "Metrics",
    "Measurement",
    "Output",
    "Storage",
    "Cluster",
    "Other",
)
GROUPS = {title: Group(title, sort_key=place) for place, title in enumerate(_TITLES)}
INPUT, MODEL, TARGETS, METHOD, WINDOWS, METRICS, MEASUREMENT, OUTPUT, STORAGE, CLUSTER, OTHER = (
    Parameter(group=group) for group in GROUPS.values()
)

MOST = 10**15  # fits into 64 bits with room for sums and products
# From and to, by the name of a setting, which means the same in every command.
RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, 10**6),
    "evaluation_batch_size": (1, 10**6),
    "fade": (0, 0.5),
    "gpus": (1, 10**6),
    "gpus_per_actor": (0, 1024),
    "images": (1, MOST),
    "input_size": (1, MOST),
    "job_images": (0, MOST),
    "feed": (0, MOST),
    "limit": (1, MOST),
    "window_pages": (0, MOST),
    "max_bytes": (1, MOST),
    "max_errors": (0, MOST),
    "max_map_side": (1, MOST),
    "max_patches": (1, MOST),
    "max_pixels": (1, MOST),
    "num_scales": (0, 1000),
    "overlays": (0, MOST),
    "pointing_smooth": (0, 1),
    "pre_filter_ratio": (0, 1),
    "price_per_gpu_hour": (0, 10**6),
    "shard_images": (1, MOST),
    "read_timeout": (0.001, 10**9),
    "retry_seconds": (0, 10**9),
    "seed": (-(2**63), 2**63 - 1),
    "step_size": (1, MOST),
    "steps": (1, MOST),
    "whole_scales": (1, 1000),
    "window_share": (0, 1),
}
UNITS = {"input_size": " pixel", "max_map_side": " pixel", "step_size": " pixel"}


def check(settings: Mapping[str, object]) -> None:
    """Refuse numbers that are out of their range, and text that is empty.

    Parameters
    ----------
    settings : mapping
        Values by the names of settings; None is left to its default.

    Raises
    ------
    SessError
        That names the flag, and what it takes.

    Examples
    --------
    >>> check({"limit": 0})
    Traceback (most recent call last):
    sess_ray.errors.SessError: --limit 0: use 1 or more
    """
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, str) and not value.strip():
            raise SessError(f"{flag} is empty: give it a value, or leave it out")
        if name in RANGES:
            for number in value if isinstance(value, list | tuple) else [value]:
                _check_range(name, flag, number)


def _check_range(name: str, flag: str, number: object) -> None:
    low, high = RANGES[name]
    if not isinstance(number, int | float):
        return
    if number > high:
        raise SessError(f"{flag} {number}: use at most {high:,}")
    if not number >= low:  # not a number, too
        raise SessError(f"{flag} {number}: use {low:g}{UNITS.get(name, '')} or more")
