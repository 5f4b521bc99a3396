"""Runs of the RayJob's entrypoint on folders of this machine."""

from __future__ import annotations

import pyarrow.parquet as pq

from tests.infra.files import groups, pod, rayjob

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


def here(command, place, output="saliency"):
    """Return a command with a folder for the bucket, and a model that needs no download."""
    command = command.replace("s3://BUCKET/saliency", f"{place}/{output}").replace("s3://BUCKET", str(place))
    return command.replace("--model resnet50", QUICK)


def entrypoint(place, actors="16-16", output="saliency"):
    return here(rayjob()["spec"]["entrypoint"], place, output).replace("--actors 16-16", f"--actors {actors}")


def written(output):
    return len([*output.glob("maps/*.parquet"), *output.glob("errors/*.parquet")])


def assert_all_rows_once(output):
    maps = pq.read_table(output / "maps", columns=["image_id", "target"]).to_pylist()
    errors = pq.read_table(output / "errors", columns=["image_id"])["image_id"].to_pylist()
    assert sorted(errors) == ["cut.jpg", "empty.png"]
    keys = [(row["image_id"], row["target"]) for row in maps]
    assert len(keys) == len(set(keys)) == 2 * IMAGES
    assert {name for name, _ in keys} == {f"{number:03}.jpg" for number in range(IMAGES)}
