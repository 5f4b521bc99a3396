"""Runs of the RayJob's entrypoint on folders of this machine."""

from __future__ import annotations

import re
import shutil

import pyarrow.parquet as pq

from tests.infra.files import ROOT, groups, pod, rayjob

IMAGES = 16
SMALL = {"object-store-memory": str(100 * 2**20)}  # several nodes share this machine
QUICK = "--model tests.faults.tiny:model --targets top2 --num-scales 1 --overlays 0"


def start_head(nodes, params=None, env=None):
    """Start a head with the RayJob's parameters."""
    return nodes.start_head(groups(rayjob())["head"]["rayStartParams"] | SMALL | (params or {}), env)


def start_worker(nodes):
    """Start a GPU pod of the RayJob; the GPU is none, and so the model runs on the CPU."""
    gpu = groups(rayjob())["gpu-spot"]
    env = {entry["name"]: entry["value"] for entry in pod(gpu)["containers"][0]["env"]}
    return nodes.start_worker(gpu["rayStartParams"] | SMALL | {"num-cpus": "3"}, env)


def here(command, place):
    """Return a command with a folder for the bucket, and a model that needs no download."""
    return command.replace("s3://BUCKET", str(place)).replace("--model resnet50", QUICK)


def shipped(place):
    """Return the command that the README submits with a checkout."""
    [command] = re.findall(r"^ray job submit --working-dir \. -- (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return here(command.replace("s3://bucket", "s3://BUCKET"), place)


def checkout(place):
    """Return a folder with the package, its jobs and the model of `QUICK`."""
    folder = place / "checkout"
    for name in ("sess_ray", "jobs", "tests/faults"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/__init__.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def written(output):
    return len([*output.glob("maps/*.parquet"), *output.glob("errors/*.parquet")])


def assert_all_rows_once(output):
    maps = pq.read_table(output / "maps", columns=["image_id", "target"]).to_pylist()
    errors = pq.read_table(output / "errors", columns=["image_id"])["image_id"].to_pylist()
    assert sorted(errors) == ["cut.jpg", "empty.png"]
    keys = [(row["image_id"], row["target"]) for row in maps]
    assert len(keys) == len(set(keys)) == 2 * IMAGES
    assert {name for name, _ in keys} == {f"{number:03}.jpg" for number in range(IMAGES)}
