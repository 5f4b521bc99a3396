"""The tables of `studies.adds`, from its rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from sess_ray import methods
from sess_ray.metrics import (
    Deletion,
    DifficultPointingGame,
    EnergyPointingGame,
    Insertion,
    MaskIoU,
    MaxBoxAccV2,
    Metric,
    Overall,
    PointingGame,
    PxAP,
    Summary,
)

SETS = {"coco": "COCO", "boxes": "ImageNet", "227": "ImageNet, kept for confirmation"}
ARMS = {"base": "without SESS → with SESS", "before": "r = 0.9, nothing fades → by default"}
# Methods that take minutes with their own options, as their walls are measured; the others have theirs.
FEWER: dict[str, dict[str, object]] = {
    "ablationcam": {},
    "scorecam": {},
    "cameras": {},
    "rise": {"masks": 500},
    "xrai": {"steps": 10},
    "sscam": {"samples": 2},
    "iscam": {"samples": 2},
    "augmented_gradcam": {"samples": 20, "steps": 50},
    "extremal_perturbation": {"areas": "0.1", "steps": 50},
}
METRICS: dict[str, type[Metric]] = {
    "pxap": PxAP,
    "pointing_game": PointingGame,
    "pointing_game_difficult": DifficultPointingGame,
    "max_box_acc_v2": MaxBoxAccV2,
    "mask_iou": MaskIoU,
    "energy_pointing_game": EnergyPointingGame,
    "insertion_rise": Insertion,
    "deletion_rise": Deletion,
    "overall_rise": Overall,
}


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each set, model and method what each metric is without and with SESS, and the difference."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "adds" and "error" not in row:
            groups.setdefault((row["data"], row["model"], row["method"]), []).append(row)
    found = []
    for (data, model, method), own in groups.items():
        entry: dict[str, Any] = {"data": data, "model": model, "method": method, "maps": len(own)}
        entry["images"] = len({row["image"] for row in own})
        for name, kind in METRICS.items():
            arms = {arm: kind() for arm in ("base", "before", "sess") if arm in own[0]}
            for row in own:
                for arm, metric in arms.items():
                    if row[arm][name] is not None:
                        metric.add(np.asarray(row[arm][name]), key=row["image"], label=row["label"])
            if arms["sess"].n:
                told: dict[str, Summary] = {arm: metric.summary() for arm, metric in arms.items()}
                told["difference"] = arms["sess"].difference(arms["base"])
                if "before" in arms:
                    told["difference to before"] = arms["sess"].difference(arms["before"])
                entry[name] = {
                    arm: {"n": value.n, **{k: round(100 * getattr(value, k), 3) for k in ("mean", "low", "high")}}
                    for arm, value in told.items()
                }
        found.append(entry)
    return found


def wall_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each method and model the mean walls of both sets, each set's and the number of maps."""
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["kind"] == "walls" and "error" not in row and np.isfinite([row["now"], row["before"]]).all():
            sets = found.setdefault((row["method"], row["model"]), {})
            sets.setdefault(row["data"], []).append((row["now"], row["before"]))
    entries = []
    for (method, model), sets in found.items():
        means = {data: np.mean(values, 0) for data, values in sets.items()}
        now, before = np.mean(list(means.values()), 0)
        entry = {"method": method, "model": model, "maps": sum(map(len, sets.values())), "now": round(float(now), 3)}
        entry |= {"before": round(float(before), 3), **{data: round(float(mean[0]), 3) for data, mean in means.items()}}
        entries.append(entry)
    return entries


def tables_of(found: list[dict[str, Any]], wall_rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield lines of Markdown."""
    for (arm, what), (data, title) in product(ARMS.items(), SETS.items()):
        own = [entry for entry in found if entry["data"] == data and arm in entry["pxap"]]
        for names in (tuple(METRICS)[:6], tuple(METRICS)[6:]):
            shown = [name for name in names if any(name in entry for entry in own)]
            if not shown:
                continue
            yield f"{title}, {what}:\n"
            yield "| model | method | maps | " + " | ".join(shown) + " |"
            yield "|---" * (3 + len(shown)) + "|"
            for entry in own:
                cells = [_cell(entry[name], arm) if name in entry else "" for name in shown]
                yield f"| {entry['model']} | {entry['method']} | {entry['maps']} | " + " | ".join(cells) + " |"
            yield ""
    if wall_rows:
        rows = list(dict.fromkeys(entry["method"] for entry in wall_rows))
        models = list(dict.fromkeys(entry["model"] for entry in wall_rows))
        known = {(entry["method"], entry["model"]): entry for entry in wall_rows}
        yield "Walls by default (before: r = 0.9, nothing fades; maps):\n"
        yield "| method | r | fade | " + " | ".join(models) + " |"
        yield "|---" * (3 + len(models)) + "|"
        for name in rows:
            method, cells = methods.get(name), []
            for model in models:
                walled = known.get((name, model))
                cells.append("{now:.2f} ({before:.2f}; {maps})".format(**walled) if walled else "")
            options = ", ".join(f"{key}={value}" for key, value in FEWER.get(name, {}).items())
            label = f"{name} ({options})" if options else name
            yield f"| {label} | {method.ratio():g} | {method.fade():g} | " + " | ".join(cells) + " |"


def _cell(told: dict[str, dict[str, float]], arm: str) -> str:
    before, after = told[arm], told["sess"]
    change = told["difference" if arm == "base" else "difference to before"]
    span = f"{change['mean']:+.1f} ({change['low']:+.1f} to {change['high']:+.1f})"
    return f"{before['mean']:.1f} → {after['mean']:.1f}: {span}"
