"""The command line as people use it: in processes of its own, where that matters."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray.data._internal import stats
from ray.data._internal.execution import streaming_executor

from sess_ray.cli import command
from sess_ray.cli import explain as explain_dataset
from sess_ray.pipeline.cluster import embedded

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "explain_dataset.py"


def job(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, str(JOB), *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )


def run(*arguments):
    """The same in this process, where Ray runs already."""
    return command.run(explain_dataset.app, list(map(str, arguments)))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "images" / "x.png"
    path.parent.mkdir()
    Image.new("RGB", (300, 260), "red").save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-scales", "many"], "--num-scales: 'many' is not a whole number"),
        (["--num-scales", "-1"], "use 1 or more"),
        (["--fusion", "mean"], 'Choose from: "seamless", "reference"'),
        (["--method", "gradcm"], "unknown method 'gradcm': did you mean gradcam or"),
        (["--model", "squeezenet1_1", "--weights", "none.safetensors"], "no such weights: none.safetensors"),
        (["--model", "squeezenet1_1", "--weights", "random", "--layer", "features.99"], "unknown layer"),
        (["--model", "squeezenet1_1", "--weights", "random", "--targets", "unicorn"], "unknown class 'unicorn'"),
        (["--targets", "5000"], "class 5000 is out of range"),
        (["--windows", "some"], 'Choose from: "all", "guided"'),
        (["--window-share", "0"], "window_share is 0"),
        (["--actors", "x"], "use N or MIN-MAX"),
        (["--model", "resnet51"], "unknown model 'resnet51': did you mean"),
        (["--input", "no/such/folder"], "no such input: no/such/folder"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--annotations", "none.json"], "no such annotations: none.json"),
        (["--annotations", "none.json", "--targets", "top1"], "leave out --targets"),
    ],
)
@pytest.mark.usefixtures("ray_session")
def test_wrong_usage_is_one_line_and_2(arguments, message, tmp_path, capfd):
    assert run(*arguments, "--output", tmp_path / "out") == 2
    assert_one_line(capfd.readouterr().err, message)
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"), [(["--nope"], "Unknown option"), (["--input", "no/such/folder"], "no such input")]
)
def test_wrong_usage_of_a_process_too(arguments, message, tmp_path):
    done = job(*arguments, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert_one_line(done.stderr, message)
    assert not (tmp_path / "out" / "run.json").exists()


def assert_one_line(told, message):
    assert message in told
    assert len(told.strip().splitlines()) == 1


@pytest.mark.ray
def test_a_cluster_that_is_not_there_is_one_line_at_once(tmp_path, image):
    given = ["--input", image.parent, "--output", tmp_path / "out", "--address", "ray://localhost:1"]
    done = job(*given, "--model", "tests.fragile:model", "--targets", "top1")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: the run failed: cannot connect to Ray at ray://loc")


@pytest.mark.slow
def test_help_explains_every_setting_fast():
    begin = time.perf_counter()
    done = job("--help")
    assert done.returncode == 0
    assert "--pre-filter-ratio" in done.stdout
    assert "ray" not in done.stderr
    assert time.perf_counter() - begin < 10


@pytest.mark.usefixtures("ray_session")
def test_config_file_flags_and_dry_run(tmp_path, image, capfd):
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"input: {image.parent}\ntargets: top3\nmodel: squeezenet1_1\nweights: random\n")
    given = ["--config", settings, "--targets", "goldfish", "--output", tmp_path / "out"]
    assert run(*given, "--dry-run", "--gpus", 8, "--price-per-gpu-hour", 2) == 0
    told = capfd.readouterr().out
    assert "would explain 1 image into" in told
    assert "'x.png': 1 (goldfish" in told
    assert "images:  1, of which 0 will end in errors/" in told
    assert re.search(r"output:  1 map, \d\d?\.\d kB\n", told)
    assert " s with 1 GPU," in told  # more have nothing to do
    assert "cost:    0.0" in told
    assert not (tmp_path / "out").exists()
    assert run(*given, "--gpus", 8) == 2
    assert "--gpus and --price-per-gpu-hour are what --dry-run reckons with" in capfd.readouterr().err
    settings.write_text("input: x\nscales: 3\n")
    assert run("--config", settings) == 2
    assert "scales" in capfd.readouterr().err


@pytest.mark.usefixtures("ray_session")
def test_errors_are_counted_and_max_errors_fails(tmp_path, image, capfd):
    (image.parent / "bad.jpg").write_text("no image")
    arguments = ["--input", image.parent, "--num-scales", 1, "--model", "tests.faults.tiny:model", "--actors", 1]
    assert run(*arguments, "--output", tmp_path / "out", "--max-errors", 0) == 1
    told = capfd.readouterr().out
    assert "1 image, 1 map, 1 error" in told
    assert "'bad.jpg', decode: not an image" in told
    assert pq.read_table(tmp_path / "out" / "maps").num_rows == 1
    assert run(*arguments, "--output", tmp_path / "out", "--targets", "top2") == 2
    assert "targets was 'auto' and is 'top2'" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_told_to_stop_says_which_way(number, code):
    waiting = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert waiting.stdout.readline() == "waiting\n"
    waiting.send_signal(number)
    _, errors = waiting.communicate(timeout=60)
    assert (waiting.returncode, errors.strip()) == (code, "stopped")


WAITING = """
import sys, time
from sess_ray.cli import command
app = command.command("waiting", None)
@app.default
def wait():
    print("waiting", flush=True)
    time.sleep(60)
command.leave(command.run(app, []))
"""


def test_rays_on_one_machine_do_not_wait_for_each_others_port(ray_session):
    session = Path(ray_session._private.worker._global_node.get_session_dir_path())
    [port] = [int(file.read_text()) for file in session.glob("dashboard_agent_listen_port_*")]
    assert port > 0
    assert port != ray_session._private.ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT


@pytest.mark.usefixtures("ray_session")
def test_the_embedded_ray_starts_nothing_that_nobody_asks():
    started = {Path(part).name for child in psutil.Process().children() for part in child.cmdline()[:3]}
    assert "raylet" in started
    assert not {"monitor.py", "log_monitor.py", "dashboard.py"} & started


@pytest.mark.ray
def test_the_demo_in_a_ray_of_its_own(tmp_path, monkeypatch):
    """Nobody is impatient, and no actors of Ray Data watch the run."""
    monkeypatch.setenv("RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S", "1")  # Ray's default: half an hour, and the run ends
    done = subprocess.run(
        [sys.executable, "-c", DEMO, str(tmp_path / "demo")], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "0 True True", done.stderr
    assert "6 images, 6 maps, 0 errors" in done.stdout
    assert "constructor arguments" not in done.stderr
    assert len(list((tmp_path / "demo" / "overlays").glob("*.png"))) == 6


DEMO = """
import sys
import ray
from ray.data._internal import stats
from ray.data._internal.execution import streaming_executor
from ray.util import list_named_actors
from sess_ray.cli import main
before = stats.get_or_create_stats_actor, streaming_executor.create_cluster_autoscaler
code = main.run("explain", ["--output", sys.argv[1], "--num-scales", "1"])
names = {actor["name"] for actor in list_named_actors(all_namespaces=True)}
after = stats.get_or_create_stats_actor, streaming_executor.create_cluster_autoscaler
print(code, names <= {"ActorLocationTracker"} or names, before == after)
"""


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("ours", [True, False])
def test_a_ray_that_others_started_runs_as_always(monkeypatch, ours):
    if not ours:
        monkeypatch.setattr(embedded, "_sessions", set())
    before = stats.get_or_create_stats_actor, streaming_executor.create_cluster_autoscaler
    with embedded.running():
        inside = stats.get_or_create_stats_actor, streaming_executor.create_cluster_autoscaler
    assert [a is b for a, b in zip(before, inside, strict=True)] == [not ours, not ours]
