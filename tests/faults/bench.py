"""Images, the places where jobs find them, and what a quiet run makes of them."""

from __future__ import annotations

import os
import random
import tarfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from tests.cloud.servers import Seaweed, seaweed
from tests.faults.jobs import ROOT, Held, Job, Place, Wrong

IMAGES = 48
MANIFEST = "images.parquet"
TARS, OF_TAR = "tars", 12  # a folder of shards, and how many images are in one
CUT = {"spans": MANIFEST, "tars": TARS}  # inputs that are cut into spans, by what names of their faults begin with
GONE = 8  # images that it names and that are not there
SLOW = Path(__file__).with_name("slow")
NODE_CPUS = 3  # the actors and a task, when one node is left of two
HEALTH = {  # a node that is gone is seen within seconds
    "health_check_initial_delay_ms": 3000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """A cluster of three nodes on this machine: one for the drivers and two for the work."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        (folder / "ray").mkdir(exist_ok=True)  # where Ray notes the address of a cluster
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": str(folder), "_system_config": HEALTH}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.fill()

    @property
    def address(self) -> str:
        return self._cluster.address

    def fill(self) -> None:
        while len(self._cluster.worker_nodes) < 2:
            self._cluster.add_node(num_cpus=NODE_CPUS)
        self._cluster.wait_for_nodes()

    def lose(self, rng: random.Random) -> None:
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: node.node_id)
        self._cluster.remove_node(rng.choice(nodes), allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


class Bench:
    """Images, the places where they lie, and what a quiet run makes of them.

    Parameters
    ----------
    folder : Path
    images : int
    where : str
        Where inputs of spans lie and are explained: "disk", "store" or "nodes".
    """

    def __init__(self, folder: Path, images: int = IMAGES, where: str = "disk") -> None:
        self._folder = folder
        self._where = where
        self._clean: dict[str, Held] = {}
        self._stack = ExitStack()
        self._env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": str(folder),
            "PYTHONPATH": str(ROOT),
        }
        self._of_spans = self._env | {"PYTHONPATH": f"{SLOW}{os.pathsep}{ROOT}"}
        self.local = Place(str(folder), str(folder), LocalFileSystem())
        draw_images(folder / "images", images)
        list_images(folder)
        pack_images(folder)

    def clean_for(self, fault: str) -> Held:
        """Return what a quiet run leaves of the input that a fault is done to."""
        kind = kind_of(fault)
        if kind not in self._clean:
            self._clean[kind] = self._quiet(self.job(f"clean-{kind or 'images'}", kind, random.Random()))
        return self._clean[kind]

    def _quiet(self, job: Job) -> Held:
        try:
            job.start()
            job.expect(0)
        except Wrong as wrong:
            raise RuntimeError(f"{wrong}: {job.last_words()}") from wrong
        finally:
            job.leave()
        return job.output.held()

    @cached_property
    def nodes(self) -> Nodes:
        os.environ.update(self._of_spans if self._where == "nodes" else self._env)
        nodes = Nodes(self._folder)
        self._stack.callback(nodes.close)
        return nodes

    @cached_property
    def server(self) -> Seaweed:
        folder = self._folder / "weed"
        folder.mkdir()
        server = self._stack.enter_context(seaweed(folder))
        server.filesystem().mkdir("bench")
        for name in ("images", TARS):
            server.filesystem().put(f"{self._folder}/{name}/", f"bench/{name}/", recursive=True)
        server.filesystem().put_file(str(self._folder / MANIFEST), f"bench/{MANIFEST}")
        return server

    def place(self, fault: str) -> Place:
        kind, _, what = fault.partition("-")
        where = self._where if kind_of(fault) else "disk"
        if "store" in (where, kind, what):
            flags = [part for option in self.server.options for part in ("--storage-option", option)]
            return Place("s3://bench", "bench", self.server.filesystem(), flags)
        if where == "nodes" or "node" in (kind, what.partition("-")[0]):
            flags = ["--address", self.nodes.address]
            return Place(self.local.url, self.local.path, self.local.filesystem, flags, is_cluster=True)
        return self.local

    def job(self, name: str, fault: str, rng: random.Random) -> Job:
        """Return a command on an output of this name, of what is cut into spans where the fault is one of theirs."""
        files = 0 if name.startswith("clean") else self.clean_for(fault).written
        log = self._folder / f"{name}.log"
        images = CUT.get(kind_of(fault))
        if images is None:
            return Job(name, self.place(fault), files, rng, log, self._env)
        return Job(name, self.place(fault), files, rng, log, self._of_spans, ("-m", "tests.faults.cut"), images)

    def close(self) -> None:
        self._stack.close()


def kind_of(fault: str) -> str:
    """Return which of the inputs in `CUT` a fault is done to; nothing where it is the folder of images."""
    kind = fault.partition("-")[0]
    return kind if kind in CUT else ""


def draw_images(folder: Path, count: int) -> None:
    """Draw smooth images of several sizes, and two files that are broken."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        size = int(rng.integers(64, 97)), int(rng.integers(64, 81))
        colours = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        colours.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:03}.jpg")
    (folder / "cut.jpg").write_bytes((folder / "000.jpg").read_bytes()[:300])
    (folder / "empty.png").write_bytes(b"")


def list_images(folder: Path) -> None:
    """Write a manifest of the images, and of some that are not there, in no order."""
    images = sorted(path.name for path in (folder / "images").iterdir())
    images += [f"gone-{number}.jpg" for number in range(GONE)]
    random.Random(0).shuffle(images)
    pq.write_table(pa.table({"id": images, "uri": [f"images/{name}" for name in images]}), folder / MANIFEST)


def pack_images(folder: Path) -> None:
    """Put the images into tar shards, of which the last one ends early."""
    images = sorted((folder / "images").iterdir())
    (folder / TARS).mkdir()
    for first in range(0, len(images), OF_TAR):
        with tarfile.open(folder / TARS / f"{first:03}.tar", "w") as shard:
            for path in images[first : first + OF_TAR]:
                shard.add(path, path.name)
    last = folder / TARS / f"{first:03}.tar"
    last.write_bytes(last.read_bytes()[:-12_000])
