"""How many actors run, and what a run says while it waits."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sess_ray import SessError
from sess_ray.pipeline.cluster import quiet
from sess_ray.pipeline.cluster.quiet import without
from sess_ray.pipeline.cluster.session import fitting
from sess_ray.pipeline.cluster.silence import heard, missing

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("cpus", "gpus", "actors", "growing", "found"),
    [
        (4, 0, None, False, (2, 2, 1)),  # the embedded Ray of two cores
        (4, 0, "5", False, (3, 3, 1)),
        (4, 0, "2-9", False, (2, 3, 1)),
        (4, 0, "3", False, (3, 3, 1)),
        (2, 0, "2", True, (1, 1, 1)),
        (2, 0, None, True, (1, 1, 1)),
        (1, 0, None, False, (1, 1, 0.4)),
        (1, 0, "4", False, (1, 1, 0.4)),
        (0, 0, "3-5", True, (3, 5, 1)),  # the machines are to come
        (2, 0, "16-16", True, (16, 16, 1)),
        (8, 8, None, True, (8, 8, 0.875)),
        (8, 8, "9", True, (8, 8, 0.875)),
        (32, 8, "4", True, (4, 4, 1)),
        (1, 1, None, False, (1, 1, 0.4)),
    ],
)
def test_as_many_actors_as_leave_a_cpu_to_read(cpus, gpus, actors, growing, found):
    workers = fitting({"CPU": cpus, "GPU": gpus}, actors, None, 100, may_grow=growing)
    assert (workers.low, workers.high, workers.cpus) == found
    asked = int((actors or "0").rpartition("-")[2])
    assert bool(workers.note) == (asked > workers.high)
    if "-" not in (actors or "-") or not growing:
        assert workers.high * workers.cpus + 0.5 <= cpus


def test_fewer_actors_than_asked_for_are_said():
    assert fitting({"CPU": 4}, "5", None, None).note.startswith(
        "--actors 5: 3 will run (Ray counts 4 CPUs, and one is left to read and write)"
    )
    assert fitting({"CPU": 4}, "5", None, None).note.endswith("to read and write)")
    assert fitting({"CPU": 4}, "5", None, None, may_grow=True).note.endswith("use MIN-MAX")
    assert "(there are 8 GPUs, 2 for each)" in fitting({"CPU": 64, "GPU": 8}, "5", 2, None).note
    with pytest.raises(SessError, match=r"--gpus-per-actor 0.5: there is no GPU: leave it out$"):
        fitting({"CPU": 4}, None, 0.5, None)
    with pytest.raises(SessError, match=r"--gpus-per-actor 2: there is 1 GPU: give less"):
        fitting({"CPU": 4, "GPU": 1}, None, 2.0, None)


def test_silence_is_explained(caplog):
    def slow():
        yield 1
        time.sleep(0.35)
        yield 2

    with caplog.at_level(logging.WARNING, "sess_ray"):
        assert list(heard(slow(), lambda: missing({"CPU": 2.0}, {"CPU": 0.0}), seconds=0.1)) == [1, 2]
        time.sleep(0.3)  # nobody watches any more
    assert [record.getMessage()[:40] for record in caplog.records] == [
        "nothing was written for 0 s: it waits fo",
        "nothing was written for 0 s: it waits fo",
    ]


NOTEBOOK = """
    import sys
    import ray
    ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False)
    from sess_ray.pipeline.explain.config import ExplainConfig
    from sess_ray.pipeline.explain.job import run
    from sess_ray.pipeline.explain.prepare import prepare

    given = {"model": "tests.fragile:model", "num_scales": 1, "overlays": 0, "limit": 3}
    summary = run(prepare(ExplainConfig(output=sys.argv[2], actors=sys.argv[3] or None, **given)))
    print(f"images: {summary.images}, errors: {summary.errors}")
"""


@pytest.mark.ray
def test_a_session_of_few_cpus_does_not_wait_for_itself(tmp_path):
    script = tmp_path / "notebook.py"
    script.write_text(textwrap.dedent(NOTEBOOK))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, script, "1", tmp_path / "out", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert "images: 2, errors: 1" in done.stdout, done.stderr[-2000:]
    assert "--actors 2: 1 will run (Ray counts 1 CPU)" in done.stderr
    assert "constructor arguments" not in done.stderr  # what Ray says of its own actors


def test_one_line_is_kept_from_the_screen(capfd):
    os.write(2, b"before\n")
    with without(b"a word too many"):
        os.write(2, b"[core] a word too many, and more\nan error of another\n")
        os.write(2, b"and of a third\n")
    os.write(2, b"a word too many is said later\n")
    assert capfd.readouterr().err == "before\nan error of another\nand of a third\na word too many is said later\n"


def test_that_tasks_are_tried_again_is_kept_from_the_screen(monkeypatch):
    from ray._private import worker

    told = []
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data, **_: told.append(data["lines"]))
    for _ in range(2):
        quiet.of_retries()
    again = "Task x failed. There are infinite retries remaining, so the task will be retried. Error: it was killed."
    for lines in ([again], ["memory is low"], [again, "a worker was killed"]):
        worker.print_to_stdstream({"lines": lines, "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert told == [["memory is low"], ["a worker was killed"]]
