"""A cluster that grows and shrinks under a run: by an autoscaler that starts with nothing, and by force."""

from __future__ import annotations

import json
import signal
from contextlib import closing

from tests.infra.nodes import Nodes, actors, autoscaling, kill, raylets, wait_for
from tests.infra.runs import (
    SMALL,
    assert_all_rows_once,
    entrypoint,
    start_head,
    start_worker,
    written,
)


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


def test_nodes_are_lost_and_come_in_mid_run(place):
    """Three actors are asked for where two fit; a machine comes, one is taken away, one is told to go."""
    output = place / "saliency"
    command = entrypoint(place, "3-3").replace("--num-scales 1", "--num-scales 3")  # takes its time
    with closing(Nodes(place)) as nodes:
        start_head(nodes)
        lost, drained = start_worker(nodes), start_worker(nodes)
        nodes.submit(command, "run")
        wait_for(lambda: actors(lost) == actors(drained) == 1 and written(output) >= 1, nodes)
        added = start_worker(nodes)
        wait_for(lambda: actors(added) == 1, nodes)
        assert not (output / "run.json").exists()
        kill(lost)
        drained.send_signal(signal.SIGTERM)
        drained.wait(timeout=100)
        nodes.finish("run")
        assert_all_rows_once(output)
        record = json.loads((output / "run.json").read_text())
        assert record["counts"]["maps"] == record["this_run"]["maps"]
