"""`ray job submit` of a checkout to a cluster that grows and shrinks with the run, by an autoscaler."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.infra.nodes import Nodes, actors, autoscaling, raylets, wait_for
from tests.infra.runs import IMAGES, SMALL, assert_all_rows_once, checkout, shipped, start_head

pytestmark = pytest.mark.ray


def test_gpus_come_when_actors_ask_for_them_and_go_with_the_run(place):
    """As in the RayJob there is no worker at first, and so no GPU to be seen. The head has no jobs: they come too."""
    (place / "empty").mkdir()
    worker = {"CPU": 3, "GPU": 1, "object_store_memory": int(SMALL["object-store-memory"])}
    with closing(Nodes(place / "empty")) as nodes:
        head = start_head(nodes, *autoscaling(place, nodes, {"gpu-spot": {"resources": worker, "max_workers": 1}}))
        assert raylets(head) == 1
        command = f"{shipped(place)} --actors 1-1 --gpus-per-actor 1"
        nodes.submit(command, "run", "--working-dir", str(checkout(place)))
        wait_for(lambda: raylets(head) == 2 and actors(head) == 1, nodes)
        nodes.finish("run")
        assert f"{IMAGES} images, {2 * IMAGES} maps, 2 errors" in nodes.jobs.get_job_logs("run")
        assert_all_rows_once(place / "saliency")
        wait_for(lambda: raylets(head) == 1, nodes)
