"""Which layer of a transformer class activation maps are made of: small nets, trained on images whose truth is known.

    python -m studies.transformer_layers DATA OUT

DATA has imagenet-samples/images/, the backgrounds of what nets are trained on, and imagenet-val-boxes/images/, those of
what is explained. An image shows one or two figures. A figure's class is its hue and its pattern, which is drawn to the
figure's size; its outline says nothing. A net is trained with a sigmoid for each class, and each figure of an image is
explained. OUT gets each net's weights, which a later run uses again, nets.json, and the tables of all nets, layers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import nn

from sess_ray import SESS, load_model, methods
from sess_ray.metrics import PointingGame, PxAP, walls
from sess_ray.metrics.sanity import parameter_randomisation, target_sensitivity
from sess_ray.models import Model
from sess_ray.tables import markdown
from studies.figures import CLASSES, Scenes, crops, scenes

SIDE = 48  # of a net's input
METHODS = ("gradcam", "gradcam++", "layercam", "hirescam", "eigencam")
DEFAULT = "first norm of the last block"


def _vit(pool: str) -> nn.Module:
    token = pool == "token"
    shape = {"img_size": SIDE, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 2}
    return timm.models.VisionTransformer(**shape, num_classes=CLASSES, global_pool=pool, class_token=token)


def _swin() -> nn.Module:
    shape = {
        "img_size": SIDE,
        "patch_size": 4,
        "window_size": 6,
        "embed_dim": 32,
        "depths": (2, 2),
        "num_heads": (1, 2),
    }
    return timm.models.SwinTransformer(**shape, num_classes=CLASSES, drop_path_rate=0.0)


def _layers(blocks: str, last: int) -> dict[str, str]:
    """Return what is compared: what a layer is, and its name."""
    return {
        DEFAULT: f"{blocks}.{last}.norm1",
        "output of the block before": f"{blocks}.{last - 1}",
        "its first norm": f"{blocks}.{last - 1}.norm1",
        "its second norm": f"{blocks}.{last - 1}.norm2",
        "second norm of the last block": f"{blocks}.{last}.norm2",
        "output of the last block": f"{blocks}.{last}",
    }


NETS: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "ViT, class token": (partial(_vit, "token"), _layers("blocks", 3) | {"final norm": "norm"}),
    "ViT, mean, no norm before it": (partial(_vit, "avg"), _layers("blocks", 3)),
    "Swin": (_swin, _layers("layers.1.blocks", 1) | {"final norm": "norm"}),
}


def pixels(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def trained(make: Callable[[], nn.Module], seen: Scenes, steps: int, seed: int) -> nn.Module:
    """Train a net on batches of 64."""
    torch.manual_seed(seed)
    net, labels = make(), seen.labels()
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps, pct_start=0.15)
    for step in range(steps):
        rows = torch.randint(len(labels), (64,))
        batch = pixels(seen.images[rows.numpy()]).flip([3] if step % 2 else [])
        loss = F.binary_cross_entropy_with_logits(net(batch), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            print(f"  step {step + 1}, loss {loss.item():.3f}, {time.process_time():.0f} s", flush=True)
    return net


@torch.no_grad()
def right(net: nn.Module, held: Scenes) -> float:
    """Return the share of images whose n figures are the n most likely classes."""
    labels = held.labels()
    logits = torch.cat([net(batch) for batch in pixels(held.images).split(100)])
    ranks = logits.argsort(1, descending=True).argsort(1)
    return float(((ranks < labels.sum(1, keepdim=True)) == (labels > 0)).all(1).float().mean())


def maps_of(shown: Scenes, method: str) -> Callable[[Model], list[np.ndarray]]:
    """Return what makes the maps of all figures of images that are as large as the input, in pairs of an image."""
    make, wanted, batch = methods.get(method).function, methods.get(method).looks_at, pixels(shown.images)

    def maps(model: Model) -> list[np.ndarray]:
        tap = model.prepared(torch.device("cpu"), "fp32").tap(batch)
        layers = (
            {"activations": tap.activations, "gradients": tap.gradients(torch.from_numpy(own))}
            for own in shown.classes.T
        )
        pairs = [make(**{name: layer[name] for name in wanted}) for layer in layers]
        found = F.interpolate(torch.stack(pairs, 1), (SIDE, SIDE), mode="bilinear")
        return list(found.flatten(0, 1).numpy())

    return maps


def worth(saliency: np.ndarray, shown: Scenes, number: int, figure: int) -> dict[str, Any]:
    """Return what a map is worth."""
    region, target = shown.masks[number, figure], int(shown.classes[number, figure])
    hit = PointingGame(tolerance=0).measure(saliency, region)
    return {"image": number, "target": target, "pxap": PxAP().measure(saliency, region), "pointing": hit}


def whole(model: Model, shown: Scenes, method: str) -> list[dict[str, Any]]:
    """Return a row of each figure, whose map is made of the whole image."""
    maps = maps_of(shown, method)(model)
    return [worth(found, shown, *divmod(number, 2)) for number, found in enumerate(maps)]


def sess(model: Model, shown: Scenes, method: str) -> list[dict[str, Any]]:
    """Return a row of each figure, whose map is made by SESS."""
    engine = SESS(model, method, num_scales=3, device="cpu", batch_size=32)
    found = list(engine.explain(list(shown.images), shown.classes.tolist()))
    return [
        worth(one.saliency, shown, number, figure) | {"walls": walls(one.saliency, one.plan, one.patches["kept"])}
        for number, figures in enumerate(found)
        for figure, one in enumerate(figures)
    ]


def sane(model: Model, shown: Scenes, method: str) -> list[dict[str, Any]]:
    """Return the similarity of maps and those of the net with random weights, and that of an image's two maps."""
    maps = maps_of(shown, method)
    own = maps(model)
    *_, (_, random) = parameter_randomisation(model, maps, "cascading", steps=2)
    kinds = {"random": random, "classes": target_sensitivity(own[::2], own[1::2])}
    return [
        {f"{kind} {what}": getattr(one, what) for what in SIMILAR} for kind, found in kinds.items() for one in found
    ]


SIMILAR = ("spearman", "ssim")
MEASURED: dict[str, tuple[Callable[..., list[dict[str, Any]]], tuple[str, ...]]] = {
    "whole": (whole, METHODS),
    "sess": (sess, ("gradcam", "layercam")),
    "sanity": (sane, METHODS),
}


def study(name: str, net: nn.Module, sets: dict[str, Scenes]) -> list[dict[str, Any]]:
    """Return rows of all layers and methods of a net."""
    rows: list[dict[str, Any]] = []
    for what, layer in NETS[name][1].items():
        model = load_model(net, layer=layer, input_size=SIDE, mean=0.5, std=0.5, activation="sigmoid")
        for kind, (measure, names) in MEASURED.items():
            for method in names:
                facts = {"layer": what, "method": method, "set": kind}
                rows += [facts | row for row in measure(model, sets[kind], method)]
    return rows


def tables(nets: list[dict[str, Any]]) -> str:
    """Return the tables: of PxAP and pointing each layer's mean and what it is more than the default's, in points."""
    rows = [row | {key: net[key] for key in ("net", "seed")} for net in nets for row in net["rows"]]
    parts = [markdown([("net", "seed", "right"), *((net["net"], net["seed"], f"{net['right']:.3f}") for net in nets)])]
    for name, what, shown in product(dict.fromkeys(net["net"] for net in nets), CELLS, ("whole", "sess", "sanity")):
        own = [row for row in rows if (row["net"], row["set"]) == (name, shown) and np.isfinite(row.get(what, np.nan))]
        if own:
            names, layers = (list(dict.fromkeys(row[key] for row in own)) for key in ("method", "layer"))
            by_method = [[row for row in own if row["method"] == method] for method in names]
            lines = [(layer, *(CELLS[what](what, some, layer) for some in by_method)) for layer in layers]
            parts.append(f"{name}, {shown}, {what}\n\n{markdown([('layer', *names), *lines])}")
    return "\n\n".join(parts)


def _mean(what: str, rows: list[dict[str, Any]], layer: str) -> str:
    return f"{np.mean([row[what] for row in rows if row['layer'] == layer] or np.nan):.2f}"


def _compared(what: str, rows: list[dict[str, Any]], layer: str) -> str:
    """Return the mean, the difference from the default's with its interval, and of how many nets it is above 0."""
    layers = [[row for row in rows if row["layer"] == each] for each in (layer, DEFAULT)]
    kind: type[Any] = PxAP if what == "pxap" else PointingGame
    metric, base = kind(), kind()
    for some, each in zip((metric, base), layers, strict=True):
        for row in each:
            some.add(row[what], key=str(row["image"]), label=str(row["target"]))
    mean = f"{100 * metric.summary().mean:.1f}"
    if layer == DEFAULT:
        return mean
    change, seeds = metric.difference(base), {row["seed"] for row in rows}
    means = [[np.mean([row[what] for row in each if row["seed"] == seed]) for seed in seeds] for each in layers]
    more = sum(one > other for one, other in zip(*means, strict=True))
    return (
        f"{mean}: {100 * change.mean:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f}), {more}/{len(seeds)}"
    )


CELLS = {"pxap": _compared, "pointing": _compared} | dict.fromkeys(
    ("walls", "random spearman", "random ssim", "classes spearman", "classes ssim"), _mean
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000, help="of training, with 64 images each")
    parser.add_argument("--train", type=int, default=16000, help="images")
    parser.add_argument("--images", type=int, default=80, help="that are explained whole; a third of them with SESS")
    config = parser.parse_args()
    torch.set_num_threads(1)
    config.out.mkdir(parents=True, exist_ok=True)
    rng, few = np.random.default_rng(0), config.images // 3
    photographs, others = (config.data / name / "images" for name in ("imagenet-samples", "imagenet-val-boxes"))
    seen = scenes(crops(photographs, 1600, SIDE, rng), config.train, rng, (0.16, 0.32), 0.6)
    held = scenes(crops(others, 195, SIDE, rng), 400, rng, (0.16, 0.32), 0.6)
    alone = scenes(crops(others, 130, SIDE, rng), 2 * config.images, rng, (0.16, 0.24), 1.0).of_two(config.images)
    parted = scenes(crops(others, 65, 160, rng), 2 * few, rng, (0.08, 0.16), 1.0).of_two(few)
    sets = {"whole": alone, "sess": parted, "sanity": alone.of_two(few)}
    nets = []
    for seed, name in product(config.seeds, NETS):
        print(f"{name}, seed {seed}, {time.process_time():.0f} s", flush=True)
        file = config.out / f"{name} {seed}.pth"
        if not file.exists():
            torch.save(trained(NETS[name][0], seen, config.steps, seed).state_dict(), file)
        net = NETS[name][0]().eval().requires_grad_(requires_grad=False)
        net.load_state_dict(torch.load(file))
        nets.append({"net": name, "seed": seed, "right": right(net, held), "rows": study(name, net, sets)})
        print(f"  right {nets[-1]['right']:.3f}, {time.process_time():.0f} s", flush=True)
        (config.out / "nets.json").write_text(json.dumps(nets))
        (config.out / "layers.md").write_text(tables(nets) + "\n")


if __name__ == "__main__":
    main()
