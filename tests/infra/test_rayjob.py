"""The RayJob's entrypoint on a cluster of the RayJob's parameters, whose nodes come and go."""

from __future__ import annotations

import json
import re
import signal
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from tests.infra.files import ROOT, flags, rayjob
from tests.infra.nodes import Nodes, actors, kill, wait_for
from tests.infra.runs import (
    IMAGES,
    assert_all_rows_once,
    here,
    start_head,
    start_worker,
    written,
)

pytestmark = pytest.mark.ray


def test_the_entrypoint_goes_on_after_a_stop_and_outlives_nodes(place):
    output = place / "saliency"
    with closing(Nodes(place)) as nodes:
        start_head(nodes)
        lost, drained = start_worker(nodes), start_worker(nodes)
        done = follow_the_document(nodes, place, lambda: nodes_are_lost_and_come_in_mid_run(nodes, lost, drained))
        assert_all_rows_once(output)
        record = json.loads((output / "run.json").read_text())
        assert record["counts"] == {"inputs": IMAGES + 2, "images": IMAGES, "maps": 2 * IMAGES, "errors": 2}
        assert 0 < done < 2 * IMAGES
        assert record["this_run"]["maps"] == 2 * IMAGES - done


def slow(command):
    """Return a command that takes seconds for an image."""
    return command.replace("--num-scales 1", "--num-scales 3")


def nodes_are_lost_and_come_in_mid_run(nodes, lost, drained):
    """Where more actors are asked for than fit: add a machine, take one away, tell one to go."""
    added = start_worker(nodes)
    wait_for(lambda: [actors(node) for node in (lost, drained, added)] == [1, 1, 1], nodes)
    drained.send_signal(signal.SIGTERM)  # it takes no more work, and goes when its actor has none
    kill(lost)


def follow_the_document(nodes, place, in_mid_run):
    """Go on as docs/cluster.md says, word for word but for the bucket and the model; stop once on the way.

    Returns
    -------
    int
        Rows that were there when it was stopped.
    """
    text = (ROOT / "docs" / "cluster.md").read_text()
    commands = re.findall(r"^ray (job .*)$", text, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["submit", "stop", "submit", "status", "logs", "list"]
    output = place / "saliency"
    rows = 0
    for command in commands:
        if command.startswith("job submit"):
            assert flags(command.partition(" -- ")[2]) == flags(rayjob()["spec"]["entrypoint"])
        done = nodes.run(*slow(here(command, place)).split())
        assert not done.returncode, done.stdout + done.stderr
        if "--submission-id first" in command:
            had = written(output)
            wait_for(lambda had=had: written(output) >= had + 2, nodes)
        if command == "job stop first":
            wait_for(lambda: nodes.jobs.get_job_status("first").is_terminal(), nodes)
            rows = pq.read_table(output / "maps", columns=["image_id"]).num_rows
        if "--submission-id second" in command:
            in_mid_run()
            assert not (output / "run.json").exists()
    nodes.finish("second")
    assert "stopped: what is written stays" in nodes.jobs.get_job_logs("first")
    return rows
