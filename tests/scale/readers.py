"""What it costs to read the output of a very large run: `python -m tests.scale.readers --rows 10000000`.

The output is made up: maps of 4 x 4 pixels, a target each, in files of 10,000 rows and row groups of 1,000, and what an
evaluation has measured of two such runs. Each reader is a process of its own, and some start Ray; printed are its
seconds, and its peak memory beside that of its imports, and the same of the largest of Ray's workers.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from sess_ray.io.maps import encode_map
from sess_ray.io.pieces import piece
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.cluster.session import connect
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.job import callers
from sess_ray.pipeline.evaluate.judging import results_schema
from sess_ray.pipeline.evaluate.parts import PART_ROWS
from sess_ray.pipeline.evaluate.pictures import pictures
from sess_ray.pipeline.evaluate.prepare import prepare as prepare_evaluation
from sess_ray.pipeline.evaluate.report import report
from sess_ray.pipeline.evaluate.results import grouped
from sess_ray.pipeline.export.config import ExportConfig
from sess_ray.pipeline.export.prepare import prepare as prepare_export
from sess_ray.pipeline.gallery.config import GalleryConfig
from sess_ray.pipeline.gallery.prepare import prepare as prepare_gallery
from sess_ray.pipeline.labels.config import LabelsConfig
from sess_ray.pipeline.labels.prepare import prepare as prepare_labels
from sess_ray.runs import open_run

ROOT = Path(__file__).parents[2]
FILE, GROUP = 10_000, 1_000  # rows
SIDE = 4  # pixels
OPENED = 100  # maps that are read of an open run
METRICS = ["pxap", "pointing_game", "max_box_acc", "energy_pointing_game"]


def image_ids(first: int, count: int) -> list[str]:
    return [f"{row % 1000:03}/photograph-{row:09}.jpg" for row in range(first, first + count)]


def _lists(values: np.ndarray) -> pa.ListArray:
    ends = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, pa.array(values.ravel()))


def _column(values: object, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def write_run(store: Store, rows: int, classes: int) -> None:
    """Write the maps of a run."""
    rng = np.random.default_rng(0)
    png = encode_map(rng.integers(0, 256, (SIDE, SIDE), np.uint8))
    folder = Path(store.path("maps"))
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, rows, FILE)):
        count = min(FILE, rows - first)
        ids, targets = image_ids(first, count), rng.integers(0, classes, count)
        known = {"image_id": ids, "uri": [f"/images/{name}" for name in ids], "target": targets, "predicted": targets}
        known |= {"target_name": [f"class {target}" for target in targets], "score": rng.random(count)}
        known |= {"target_classes": _lists(targets.astype(np.int32)[:, None]), "predicted_score": rng.random(count)}
        bytes_, paths = pa.array([png] * count, pa.binary()), pa.nulls(count, pa.string())
        known |= {"saliency": pa.StructArray.from_arrays([bytes_, paths], ["bytes", "path"])}
        known |= {"method": ["gradcam"] * count}
        known |= {"model": ["tests.fragile:model"] * count}
        columns = [_column(known.get(field.name, [SIDE] * count), field.type) for field in MAPS]
        name = piece(number, range(first, first + count), count, count).stem
        pq.write_table(pa.table(columns, schema=MAPS), folder / f"{name}.parquet", row_group_size=GROUP)
    settings = {"model": "tests.fragile:model", "weights": None, "layer": None, "class_names": None, "targets": "top1"}
    store.write_json("run.json", {"config": settings, "model": {"weights_sha256": "0"}})


def write_results(store: Store, run: str, rows: int, classes: int, seed: int) -> None:
    """Write what an evaluation has measured of a run."""
    rng, schema = np.random.default_rng(seed), results_schema(METRICS)
    folder = Path(store.path(f"results/{run}"))
    folder.mkdir(parents=True)
    for first in range(0, rows, PART_ROWS):
        count = min(PART_ROWS, rows - first)
        targets = np.random.default_rng(first).integers(0, classes, count)  # those of the other run
        labels = [f"class {target}" for target in targets]
        known = {"run": [run] * count, "image_id": image_ids(first, count), "target": targets, "target_name": labels}
        known |= {
            "label": labels,
            "area": rng.random(count),
            "size": ["< 5 %", "> 25 %"] * (count // 2) + ["> 25 %"] * (count % 2),
        }
        known |= {"pxap": rng.random(count), "energy_pointing_game": rng.random(count)}
        known |= {"pointing_game": (rng.random(count) < 0.5).astype(float)}
        known |= {"max_box_acc": _lists((rng.random((count, 20)) < 0.5).astype(float))}
        columns = [_column(known.get(field.name, [1] * count), field.type) for field in schema]
        pq.write_table(pa.table(columns, schema=schema), folder / f"{first:012}.parquet")


def opened(folder: Path) -> str:
    run, draw = open_run(str(folder / "run")), random.Random(0)
    total = sum(float(run[draw.randrange(len(run))].saliency.sum()) for _ in range(OPENED))
    return f"{len(run)} maps, {OPENED} of them read, {total / OPENED:.2f}"


def exported(folder: Path) -> str:
    export = prepare_export(ExportConfig(run=str(folder / "run"), output=str(folder / "export")))
    return f"{export.facts.images} images in {export.facts.shards} shards"


def labelled(folder: Path) -> str:
    labelling = prepare_labels(LabelsConfig(run=str(folder / "run"), output=str(folder / "labels")))
    return f"{len(labelling.blocks)} parts, {len(labelling.recipe.classes)} classes"


def shown(folder: Path) -> str:
    gallery = prepare_gallery(GalleryConfig(run=(f"sess={folder / 'run'}",), output=str(folder / "gallery")))
    return f"{len(gallery.rows)} maps"


def _evaluation(folder: Path, *runs: str) -> EvaluateConfig:
    named = tuple(f"{run}={folder / 'run'}" for run in runs)
    return EvaluateConfig(run=named, output=str(folder / "evaluation"), overwrite=True, model="tests.fragile:model")


def evaluated(folder: Path) -> str:
    evaluation = prepare_evaluation(_evaluation(folder, "sess"))
    return f"{evaluation.maps} maps in {len(evaluation.selection.blocks)} blocks"


def reported(folder: Path, *runs: str) -> str:
    evaluation = prepare_evaluation(_evaluation(folder, *runs))
    evaluation.metrics = METRICS
    results = {run: grouped(evaluation.store, run) for run in runs}
    compared = evaluation.config.compared()
    if max(map(len, results.values())) > 1:  # the job has a session in any case
        connect(None)
    call = callers(evaluation.config, results)
    lines = report(results, METRICS, compared, call)
    _, pages = pictures(evaluation, results, compared, call)
    return f"{len(lines)} lines, {len(pages)} pictures"


READERS: dict[str, Callable[[Path], str]] = {
    f"open_run, {OPENED} maps": opened,
    "export, before it starts": exported,
    "labels, before they start": labelled,
    "gallery, before it starts": shown,
    "evaluate, before it starts": evaluated,
    "evaluate, report of one run": lambda folder: reported(folder, "sess"),
    "evaluate, report of two runs": lambda folder: reported(folder, "base", "sess"),
}


def peak() -> float:
    """Return the peak memory of this process so far in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Children:
    """What processes take that this one has started, Ray's own among them, as long as they are watched."""

    def __init__(self) -> None:
        self.cpu: dict[int, float] = {}
        self.peak = 0.0  # MiB of the largest worker
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Children:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self._look()
        self._look()

    def _look(self) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error, OSError):
                self.cpu[child.pid] = sum(child.cpu_times()[:2])
                if child.cmdline()[0].startswith("ray::"):
                    status = Path(f"/proc/{child.pid}/status").read_text()
                    self.peak = max(self.peak, int(status.split("VmHWM:")[1].split()[0]) / 1024)


def measure(name: str, folder: Path) -> dict[str, object]:
    """Run a reader in this process."""
    before, begin, cpu = peak(), time.perf_counter(), time.process_time()
    with Children() as children:
        said = READERS[name](folder)
    seconds, used = time.perf_counter() - begin, time.process_time() - cpu
    found: dict[str, object] = {"seconds": seconds, "cpu": used, "imports": before, "peak": peak(), "said": said}
    return found | {"children_cpu": sum(children.cpu.values()), "children_peak": children.peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--only", default="", help="readers whose names have this in them")
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help="where the output is, or is made and stays; without it, nothing stays")
    given = parser.parse_args()
    if given.reader:
        print(json.dumps(measure(given.reader, Path(given.folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary)
        if not (folder / "run" / "run.json").exists():
            begin = time.perf_counter()
            for seed, run in enumerate(("base", "sess")):
                write_results(Store(str(folder / "evaluation")), run, given.rows, given.classes, seed)
            write_run(Store(str(folder / "run")), given.rows, given.classes)
            print(f"{given.rows} rows, written in {time.perf_counter() - begin:.0f} s", flush=True)
        print(
            "| reader | seconds | of the processor | and in Ray | MiB of the imports | MiB at most | of a worker | |",
            "|---|---|---|---|---|---|---|---|",
            sep="\n",
        )
        for name in READERS:
            if given.only not in name:
                continue
            command = [sys.executable, "-m", "tests.scale.readers", "--reader", name, "--folder", str(folder)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"| {name} | {done.stderr.strip().splitlines()[-1]} |", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            cells = (
                f"{found['seconds']:.1f}",
                f"{found['cpu']:.1f}",
                f"{found['children_cpu']:.1f}",
                f"{found['imports']:.0f}",
                f"{found['peak']:.0f}",
                f"{found['children_peak']:.0f}",
            )
            print(f"| {name} | {' | '.join(cells)} | {found['said']} |", flush=True)


if __name__ == "__main__":
    main()
