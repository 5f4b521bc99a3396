"""A cluster that grows and shrinks with a run, by an autoscaler that starts with nothing."""

from __future__ import annotations

from contextlib import closing

from tests.infra.nodes import Nodes, actors, autoscaling, raylets, wait_for
from tests.infra.runs import SMALL, assert_all_rows_once, entrypoint, start_head


def test_gpus_come_when_actors_ask_for_them_and_go_with_the_run(place):
    """As in the RayJob there is no worker at first, and so no GPU to be seen."""
    worker = {"CPU": 3, "GPU": 1, "object_store_memory": int(SMALL["object-store-memory"])}
    with closing(Nodes(place)) as nodes:
        head = start_head(nodes, *autoscaling(place, nodes, {"gpu-spot": {"resources": worker, "max_workers": 2}}))
        assert raylets(head) == 1
        nodes.submit(entrypoint(place, "2-2"), "run")
        wait_for(lambda: raylets(head) == 3 and actors(head) == 2, nodes)
        nodes.finish("run")
        assert_all_rows_once(place / "saliency")
        wait_for(lambda: raylets(head) == 1, nodes)
