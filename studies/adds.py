"""What SESS adds, and what walls it leaves: the tables of docs/evaluation.md, by the core alone, in one command.

    python -m studies.adds DATA OUT --seconds 200

DATA has weights/MODEL.safetensors, imagenet-val-boxes/ and imagenet-val-227/ (each images and labels.json) and
coco-subset/ (train2017/, annotations/instances_train2017.json, coco_to_imagenet.json). Several processes share the
device. Each image is a row of OUT/rows.jsonl as soon as it is measured, so that a run that is cut short says what it
knows of how many images; images are taken in an order drawn with seed 0. OUT/adds.json and OUT/adds.md are the tables.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import queue
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

from sess_ray import SESS, load_model, methods
from sess_ray.boxes import boxes_region
from sess_ray.engine.explanation import Explanation
from sess_ray.engine.fusion import fuse, keep
from sess_ray.errors import SessError
from sess_ray.metrics import (
    Deletion,
    EnergyPointingGame,
    Insertion,
    MaskIoU,
    MaxBoxAccV2,
    PointingGame,
    PxAP,
    at_input_size,
    walls,
)
from sess_ray.metrics.localization import is_difficult
from sess_ray.metrics.perturbation import scored
from studies.adds_tables import FEWER, summaries, tables_of, wall_table
from studies.annotated import Thing, pictures, precision, small

MODELS = ("squeezenet1_1", "tf_efficientnet_lite0", "squeezenet1_0", "tf_efficientnet_lite2")
WALLED = ("squeezenet1_1", "tf_efficientnet_lite0", "tf_efficientnet_lite2")
METHODS = ("gradcam", "guided_backprop", "groupcam")
SMOOTH = {"guided_backprop": 0.02}  # the pointing game's protocol for maps of pixel gradients


@dataclass(frozen=True)
class Task:
    """Some images of a set, to be explained by a method and a model."""

    kind: str  # adds or walls
    data: str
    model: str
    method: str
    part: int = 0
    parts: int = 1
    limit: int | None = None
    options: dict[str, object] = field(default_factory=dict)


def chosen(root: Path, task: Task) -> list[tuple[Path, list[Thing]]]:
    """Return a task's images, in the order that is drawn for all."""
    every = pictures(root, task.data)
    order = np.random.default_rng(0).permutation(len(every))[: task.limit]
    return [every[number] for number in order[task.part :: task.parts]]


# ---- measuring ------------------------------------------------------------------------------------------------------


def as_before(found: Explanation) -> tuple[Explanation, np.ndarray]:
    """Return what r = 0.9 without fading, once the default, makes of the same windows, and which it keeps."""
    scores = torch.from_numpy(found.patches["score"].copy())
    few = keep(scores, 0.9)
    assert found.patch_maps is not None
    own = torch.from_numpy(found.patch_maps)[few[torch.from_numpy(found.patches["kept"].copy())]]
    plan = replace(found.plan, fade=0.0)
    return replace(found, saliency=fuse(plan, own, scores, few).numpy()), few.numpy()


def measured(found: Explanation, thing: Thing, *, smooth: float, others: bool) -> dict[str, Any]:
    """Return what the annotations say of a map; None where a metric does not apply."""
    height, width = found.saliency.shape
    covered = boxes_region(thing.boxes, height, width)
    segments = thing.segments(height, width)
    region = covered if segments is None else segments
    hit = PointingGame(smooth=smooth).measure(found.saliency, region)
    return {
        "pxap": precision(PxAP(), found.saliency, thing, region),
        "pointing_game": hit,
        "pointing_game_difficult": hit if is_difficult(region, others) else None,
        "max_box_acc_v2": MaxBoxAccV2().measure(*small(found.saliency, thing.boxes)).tolist(),
        "mask_iou": None if segments is None else MaskIoU().measure(found.saliency, segments).tolist(),
        "energy_pointing_game": EnergyPointingGame().measure(found.saliency, covered),
    }


def asked(sess: SESS, pixels: np.ndarray, explanations: list[Explanation]) -> list[dict[str, float]]:
    """Return insertion and deletion of an image's maps."""
    metrics = {"insertion_rise": Insertion("rise"), "deletion_rise": Deletion("rise")}
    requests = []
    for found in explanations:
        inputs = at_input_size(pixels, found.saliency, sess.model)
        requests += [(metric.series(*inputs), found.target) for metric in metrics.values()]
    answers = scored(sess.model, iter(requests), sess.batch_size)
    values = [
        {name: float(metric.measure(next(answers))) for name, metric in metrics.items()}
        for _ in range(len(explanations))
    ]
    return [both | {"overall_rise": both["insertion_rise"] - both["deletion_rise"]} for both in values]


def added(engines: dict[str, SESS], pixels: np.ndarray, things: list[Thing], smooth: float) -> list[dict[str, Any]]:
    """Return a row for each thing: its label and the values without and with SESS."""
    rows: list[dict[str, Any]] = [{"label": thing.label} for thing in things]
    for engine, sess in engines.items():
        [explanations] = sess.explain([pixels], [[thing.target for thing in things]])
        arms = {engine: explanations}
        if engine == "sess" and sess.method.family == "T":
            arms["before"] = [as_before(found)[0] for found in explanations]
        for arm, given in arms.items():
            for row, thing, found, more in zip(rows, things, given, asked(sess, pixels, given), strict=True):
                row[arm] = measured(found, thing, smooth=smooth, others=len(things) > 1) | more
    return rows


def walled(sess: SESS, pixels: np.ndarray, things: list[Thing]) -> list[dict[str, Any]]:
    """Return for each thing the walls of its map, and of the map of before: r = 0.9, where nothing fades."""
    [explanations] = sess.explain([pixels], [[thing.target for thing in things]])
    rows = []
    for thing, found in zip(things, explanations, strict=True):
        before, few = as_before(found)
        now = walls(found.saliency, found.plan, found.patches["kept"])
        rows.append({"label": thing.label, "now": now, "before": walls(before.saliency, found.plan, few)})
    return rows


def run(task: Task, config: argparse.Namespace, end: float, tell: Any) -> None:
    """Measure a task's images, and tell a row of each thing."""
    torch.set_num_threads(1)
    images = chosen(config.data, task)
    if not images or time.time() > end:
        return
    model = load_model(task.model, str(config.data / "weights" / f"{task.model}.safetensors"))
    shared: dict[str, Any] = {
        "method": task.method,
        "method_options": task.options,
        "precision": config.precision,
        "keep_maps": True,
    }
    facts = {"kind": task.kind, "data": task.data, "model": task.model, "method": task.method}
    size = config.batch
    engines: dict[str, SESS] = {}
    for file, things in images:
        pixels = np.array(Image.open(file).convert("RGB"))
        while time.time() < end:
            if not engines:
                engines = {"sess": SESS(model, num_scales=config.scales, batch_size=size, **shared)}
                if task.kind == "adds":
                    engines = {"base": SESS(model, num_scales=None, batch_size=size, **shared), **engines}
            try:
                if task.kind == "adds":
                    rows = added(engines, pixels, things, SMOOTH.get(task.method, 0.0))
                else:
                    rows = walled(engines["sess"], pixels, things[:1])
            except torch.OutOfMemoryError:  # the device is shared
                engines, size = {}, max(8, size // 2)
                torch.cuda.empty_cache()
                time.sleep(1)
                continue
            tell([facts | {"image": file.name, **row} for row in rows])
            break


def worker(waiting: Any, results: Any, config: argparse.Namespace, end: float) -> None:
    while time.time() < end:
        try:
            task = waiting.get(timeout=1)
        except queue.Empty:
            break
        try:
            run(task, config, end, results.put)
        except SessError as error:  # the method does not fit the model
            results.put([{**vars(task), "error": str(error)}])
        except Exception:
            results.put([{**vars(task), "error": traceback.format_exc(limit=-3)}])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    results.put(None)


# ---- all ------------------------------------------------------------------------------------------------------------


def tasks(config: argparse.Namespace) -> list[Task]:
    """Return what is to be done, the most wanted first."""
    first, rest = MODELS[:2], MODELS[2:]
    both = ("coco", "boxes")

    def adds(models: Iterable[str], sets: Iterable[str], names: Iterable[str]) -> list[Task]:
        every = product(models, sets, names, range(config.parts))
        return [Task("adds", data, model, name, part, config.parts, config.limit) for model, data, name, part in every]

    def looks(names: Iterable[str], parts: int) -> list[Task]:
        every = product(range(parts), names, WALLED, both)
        return [
            Task("walls", data, model, name, part, parts, config.few, FEWER.get(name, {}))
            for part, name, model, data in every
        ]

    found = [
        *adds(first, both, METHODS[:2]),
        *looks([name for name in methods.names() if name not in FEWER], 1),
        *adds(rest, both, METHODS[:1]),
        *adds(MODELS, ["227"], METHODS[:1]),
        *adds(first, both, METHODS[2:]),
        *looks(FEWER, config.few),  # one image after the other
        *adds(first, ["227"], METHODS[1:]),
        *adds(rest, both, METHODS[1:]),
    ]
    return [
        task
        for task in found
        if task.kind in config.what and task.model in config.models
        and task.method in (config.methods or (METHODS if task.kind == "adds" else methods.names()))
    ]  # fmt: skip


def write(out: Path, rows: list[dict[str, Any]]) -> str:
    """Write the tables of what is known, and return them."""
    found, wall_rows = summaries(rows), wall_table(rows)
    errors = [row for row in rows if "error" in row]
    (out / "adds.json").write_text(json.dumps({"adds": found, "walls": wall_rows, "errors": errors}, indent=1))
    text = "\n".join(tables_of(found, wall_rows))
    (out / "adds.md").write_text(text + "\n")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=200, help="then what is known is written")
    parser.add_argument("--what", nargs="+", default=["adds", "walls"], choices=["adds", "walls"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--methods", nargs="+", help=f"without it {', '.join(METHODS)}, and for walls all")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--parts", type=int, default=4, help="into which the images of a set are cut")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--scales", type=int, default=12)
    parser.add_argument("--limit", type=int, help="images of each set")
    parser.add_argument("--few", type=int, default=3, help="images of each set for walls")
    config = parser.parse_args()
    config.out.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    end = begin + config.seconds - 10  # an image that is begun is finished
    context = mp.get_context("spawn")
    waiting, results = context.Queue(), context.Queue()
    for task in tasks(config):
        waiting.put(task)
    arguments = (waiting, results, config, end)
    workers = [context.Process(target=worker, args=arguments, daemon=True) for _ in range(config.workers)]
    for process in workers:
        process.start()
    rows: list[dict[str, Any]] = []
    working, written = len(workers), time.time()
    with open(config.out / "rows.jsonl", "w") as log:
        while working and time.time() < end + 6 and any(process.is_alive() for process in workers):
            try:
                told = results.get(timeout=1)
            except queue.Empty:
                continue
            if told is None:
                working -= 1
                continue
            rows += told
            log.writelines(json.dumps(row) + "\n" for row in told)
            log.flush()
            if time.time() > written + 30:
                write(config.out, rows)
                written = time.time()
    for process in workers:
        process.terminate()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(write(config.out, rows))
    for row in rows:
        if "error" in row:
            print(row["kind"], row["data"], row["model"], row["method"], row["error"])
    print(f"{len(rows)} rows in {time.time() - begin:.0f} s on {device}, {config.scales} scales, {config.precision}")


if __name__ == "__main__":
    main()
