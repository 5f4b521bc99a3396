"""What a GPU makes of the engine, beside its forward passes alone: one command that needs torch and torchvision.

    python -m sess_ray.benchmark.device --model resnet50 --precision fp32 tf32 bf16 --batch-size 128 256

No Ray, no network: weights and images are random. ``--before FOLDER`` measures another checkout too, in turns.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sess_ray.benchmark.rate import flops_of_product, flops_of_window, matrix, multiply
from sess_ray.products import multiplying
from sess_ray.transfer import Download

# Rows and columns of photographs, as ImageNet has them; one is met twice.
SIZES = ((375, 500), (500, 375), (333, 500), (500, 400), (375, 500), (480, 640))
IMAGENET = 1_281_167
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")


def pictures(count: int) -> list[np.ndarray]:
    """Return images of random, smooth colours, (H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        coarse = torch.rand(1, 3, 12, 16, generator=generator)
        smooth = F.interpolate(coarse, SIZES[number % len(SIZES)], mode="bicubic")[0].clamp(0, 1)
        found.append((smooth * 255).byte().permute(1, 2, 0).contiguous().numpy())
    return found


class Runner:
    """The engine of one checkout at one precision and batch size."""

    def __init__(self, label: str, sess: Any, settings: dict[str, Any]) -> None:
        self.label = label
        self.sess = sess
        self.settings = settings
        self.seconds: list[float] = []
        self.host: list[float] = []
        self.images = self.windows = 0

    def __call__(self, images: list[np.ndarray]) -> float:
        """Explain images and return the seconds that it took."""
        _wait(self.sess.device)
        begin = time.perf_counter()
        with _waiting() as waits:
            count = sum(1 + one[0].num_forwards for _, one in self.sess.stream((image, "top1") for image in images))
        self.host.append(time.perf_counter() - begin - sum(waits))
        _wait(self.sess.device)
        seconds = time.perf_counter() - begin
        self.images, self.windows = len(images), count
        return seconds

    def host_time(self) -> dict[str, float]:
        """Return the host's milliseconds for a batch, its waits for results left out; of this checkout, on a device."""
        if self.sess.device.type == "cpu" or self.label != "now":
            return {}
        return {"host_ms": 1000 * float(np.median(self.host)) * self.sess.batch_size / self.windows}

    def facts(self, images: list[np.ndarray]) -> dict[str, float]:
        """Return launches, waits and copies an image, and the most memory in GiB; nothing on a CPU."""
        if self.sess.device.type != "cuda":
            return {}
        torch.cuda.reset_peak_memory_stats()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self(images)
        counts = {event.key: event.count for event in profile.key_averages()}

        def total(names: tuple[str, ...]) -> float:
            return sum(count for key, count in counts.items() if key.startswith(names)) / len(images)

        return {
            "launches": total(LAUNCHES),
            "waits": total(WAITS),
            "copies": total(("cudaMemcpyAsync", "cudaMemcpy")),
            "gib": torch.cuda.max_memory_allocated() / 2**30,
        }


@contextmanager
def _waiting() -> Iterator[list[float]]:
    """Give a list that takes the seconds for which the host waits for results."""
    read, found = Download.read, []

    def timed(self: Download) -> torch.Tensor:
        begin = time.perf_counter()
        values = read(self)
        found.append(time.perf_counter() - begin)
        return values

    Download.read = timed  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Download.read = read  # type: ignore[method-assign]


def floor(module: torch.nn.Module, batch: torch.Tensor, windows: int, *, tf32: bool) -> float:
    """Return the seconds of so many windows' forward passes alone, on a batch that lies ready."""
    with torch.inference_mode(), multiplying(tf32=tf32):
        _wait(batch.device)
        begin = time.perf_counter()
        for first in range(0, windows, len(batch)):
            module(batch[: min(len(batch), windows - first)])
        _wait(batch.device)
        return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _loaded(folder: str | None) -> tuple[Any, Any]:
    """Return SESS and load_model of this checkout, or of another one, which is then forgotten again."""
    if folder is None:
        import sess_ray

        return sess_ray.SESS, sess_ray.load_model
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "sess_ray"}
    sys.path.insert(0, folder)
    try:
        other = importlib.import_module("sess_ray")
        return other.SESS, other.load_model
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "sess_ray"]:
            del sys.modules[name]
        sys.modules.update(ours)


def _runners(settings: argparse.Namespace, precision: str, batch_size: int) -> Iterator[Runner]:
    shared = {"num_scales": settings.num_scales, "device": settings.device, "batch_size": batch_size}
    shared |= {"method": settings.method, "pre_filter_ratio": settings.ratio}
    for label, folder in (("before", settings.before), ("now", None)):
        if label == "before" and folder is None:
            continue
        make, load = settings.engines[label]
        own = {**shared, "precision": "fp32" if label == "before" and precision == "tf32" else precision}
        if label == "before" and precision == "fp32":
            continue  # it was TF32: what torch makes of convolutions by default
        yield Runner(label, make(load(settings.model, "random"), **own), own)


def measure(settings: argparse.Namespace, precision: str, batch_size: int) -> list[dict[str, Any]]:
    """Return a row for the forward passes alone and for each engine, which take turns."""
    runners = list(_runners(settings, precision, batch_size))
    ours = runners[-1].sess
    images = pictures(settings.images)
    patches = ours.model.probe(batch_size) + torch.randn(1, 3, 1, 1, device=ours.device).to(ours.dtype)
    patches = patches.contiguous(memory_format=torch.channels_last)
    for runner in runners:
        runner(images[: len(SIZES)])
        runner.host.clear()
    tf32, windows = precision == "tf32", runners[-1].windows * len(images) // min(len(images), len(SIZES))
    run_floor = lambda: floor(ours.model.module, patches, windows, tf32=tf32)  # noqa: E731
    run_floor()
    floors: list[float] = []
    for _ in range(settings.rounds):
        floors.append(run_floor())
        for runner in runners:
            runner.seconds.append(runner(images))
    values = matrix(ours.device, ours.dtype)
    with multiplying(tf32=tf32):
        multiply(values)
        product = min(_timed(lambda: multiply(values), ours.device) for _ in range(5))
    rate = flops_of_product(values) / product
    flops = flops_of_window(ours.model)
    shared = {"precision": precision, "batch": batch_size}
    seconds = float(np.median(floors))
    rows: list[dict[str, Any]] = [
        {**shared, "what": "forward alone", "seconds": seconds, "windows": windows, "images": len(images)}
    ]
    rows += [
        {
            **shared,
            "what": runner.label,
            "seconds": float(np.median(runner.seconds)),
            "windows": runner.windows,
            "images": runner.images,
            **runner.host_time(),
            **runner.facts(images[: len(SIZES)]),
        }
        for runner in runners
    ]
    for row in rows:
        row["images_per_second"] = row["images"] / row["seconds"]
        row["ratio"] = row["seconds"] / row["windows"] / (seconds / windows)
        row["matrix_share"] = row["windows"] * flops / row["seconds"] / rate
        row["gpu_hours"] = IMAGENET / row["images_per_second"] / 3600
    return rows


def _timed(function: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    begin = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - begin


COLUMNS = {
    "precision": "{}",
    "batch": "{}",
    "what": "{}",
    "images_per_second": "{:.1f}",
    "ratio": "{:.3f}",
    "launches": "{:.0f}",
    "waits": "{:.1f}",
    "host_ms": "{:.1f}",
    "copies": "{:.1f}",
    "gib": "{:.1f}",
    "matrix_share": "{:.2f}",
    "gpu_hours": "{:.1f}",
}


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = (written.format(row[name]) if name in row else "" for name, written in COLUMNS.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="of torchvision or timm; its weights are random")
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--num-scales", type=int, default=12)
    parser.add_argument("--ratio", type=float, default=0.9, help="pre-filter ratio")
    parser.add_argument("--precision", nargs="+", default=["fp32", "tf32", "bf16"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[256])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--before", help="folder of another checkout, measured in turns")
    parser.add_argument("--json", help="write the figures to this file")
    settings = parser.parse_args()
    settings.engines = {"now": _loaded(None)}
    if settings.before:
        if not (Path(settings.before) / "sess_ray" / "__init__.py").is_file():
            parser.error(f"--before {settings.before}: there is no sess_ray/ in it")
        settings.engines["before"] = _loaded(settings.before)
    rows = []
    for precision in settings.precision:
        for batch_size in settings.batch_size:
            rows += measure(settings, precision, batch_size)
            print(table(rows[-1:]).split("\n")[-1], flush=True)
    name = torch.cuda.get_device_name() if settings.device.startswith("cuda") else "CPU"
    print(f"\n{name}, torch {torch.__version__}, {settings.model}, {settings.method}, {settings.num_scales} scales\n")
    print(table(rows))
    if settings.json:
        with open(settings.json, "w") as file:
            json.dump({"device": name, "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
