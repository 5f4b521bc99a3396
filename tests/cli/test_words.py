"""What the explain command says of a run, in plain words."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest

from sess_ray.cli import command, main
from sess_ray.cli import explain as cli
from sess_ray.cli.telling import next_steps, speed_of
from sess_ray.io.store import Store
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.record import Summary, Total
from sess_ray.pipeline.explain.stages import TASKS


def job(uris, finished=0, output="out"):
    tasks = pa.table({name: [None] * len(uris) if name != "uri" else uris for name in TASKS.names}, TASKS)
    held = {"tasks": tasks, "left": len(uris), "finished": finished, "inputs": len(uris) + finished}
    return SimpleNamespace(**held, store=Store(output), groups={})


@pytest.mark.parametrize(
    ("uris", "finished", "told"),
    [
        (["a.jpg"], 0, "1 image"),
        (["a.jpg", "b.jpg"], 1, "2 images (1 more is finished)"),
        (["a.tar", "b.tar"], 0, "2 tar shards"),
        (["a.tar", "b.jpg"], 1200, "1 image and 1 tar shard (1,200 more are finished)"),
    ],
)
def test_what_is_to_be_explained(uris, finished, told):
    assert cli._number(job(uris, finished)) == told


def test_when_nothing_is_left_a_dry_run_says_so(capsys):
    cli._describe(job([], 3), None, None)
    assert capsys.readouterr().out == (
        "nothing is left to explain: 3 images of the input, and the output holds what they gave\n"
    )
    cli._describe(job([], 1), None, None)
    assert capsys.readouterr().out.endswith("1 image of the input, and the output holds what it gave\n")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, []),
        ({"num_scales": 0}, []),
        (
            {"num_scales": 0, "pre_filter_ratio": 0.9, "step_size": 100, "window_share": 0.5},
            ["--step-size and --pre-filter-ratio and --window-share have no effect without SESS (--num-scales 0)"],
        ),
        ({"window_share": 0.5}, ["--window-share has no effect without --windows guided"]),
        ({"windows": "guided", "window_share": 0.5, "whole_scales": 2}, []),
        (
            {"windows": "guided", "num_scales": 3, "window_share": 0.5},
            ["--windows and --window-share have no effect without more scales than --whole-scales 4"],
        ),
        ({"several_classes": "best"}, ["--several-classes has no effect without --annotations"]),
        ({"several_classes": "best", "annotations": "a.json"}, []),
    ],
)
def test_settings_without_an_effect_are_said(settings, told, capsys):
    cli._say(
        SimpleNamespace(
            **{**vars(job(["a.jpg"])), "config": ExplainConfig(**settings)},
            model=SimpleNamespace(notes=()),
            left_out=[],
        )
    )
    assert capsys.readouterr().out.splitlines() == told


def test_both_tables_are_printed_where_both_are_asked_for(monkeypatch, capsys):
    monkeypatch.setattr("sess_ray.methods.table", lambda: [("a",), ("a1",)])
    monkeypatch.setattr("sess_ray.models.model_table", lambda: [("b",), ("b1",)])
    for flags, words in (
        (["--list-methods"], "a"),
        (["--list-models"], "b"),
        (["--list-methods", "--list-models"], "ab"),
    ):
        assert main.run("explain", flags) == 0
        told = capsys.readouterr().out
        assert [word for word in "ab" if f"| {word}" in told] == list(words)


def test_nothing_is_told_of_nothing(capsys):
    command.bar("image", 0).close()
    assert capsys.readouterr().err == ""


def finished(output, **settings):
    """Return what is known of a run that has left nothing to do."""
    return SimpleNamespace(**{**vars(job([])), "store": Store(output), "config": ExplainConfig(**settings)})


def commands(job, program="sess-ray", **environment):
    lines = [shlex.split(line) for line in next_steps(job, program, environment)]
    return {line[0]: line[1:] for line in lines}


@pytest.mark.parametrize("output", ["out", "my maps/of $1"])
def test_in_the_end_it_says_what_to_do_with_the_maps(output, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/somewhere/sess-ray")
    cli._report(finished(output), Summary(total=Total(1, 2, 0)))
    [held, _, *steps] = capsys.readouterr().out.splitlines()
    assert held == "the output now holds 1 image, 2 maps, 0 errors"
    assert [shlex.split(step) for step in steps] == [
        ["look:", "sess-ray", "gallery", "--run", f"sess={output}", "--output", f"{output}/gallery"],
        ["evaluate:", "sess-ray", "evaluate", "--run", f"sess={output}", "--output", f"{output}/evaluation"],
        ["export:", "sess-ray", "export", "--run", output, "--output", f"{output}/dataset"],
    ]
    for step in steps:
        name, *given = shlex.split(step)[2:]
        main.import_module(f"sess_ray.cli.{name}").app.parse_args(given, exit_on_error=False, print_error=False)
    cli._report(finished(output), Summary(total=Total(0, 0, 2)))
    assert "look:" not in capsys.readouterr().out


def test_what_was_said_of_the_run_is_said_to_what_comes_next():
    options = ("s3.endpoint_url=http://host:9000", "s3.secret=abc")
    found = commands(finished("out", annotations="a b.json", class_map="m.json", storage_option=options))
    assert found["evaluate:"][4:8] == ["--annotations", "a b.json", "--class-map", "m.json"]
    for words in found.values():
        assert words[-2:] == [f"--storage-option={options[0]}", "--storage-option=s3.secret=***"]
    assert "--class-map" not in commands(finished("out", class_map="m.json", targets="dog"))["evaluate:"]
    assert commands(finished("out", address="ray://head:1"))["look:"][-2:] == ["--address", "ray://head:1"]


def test_commands_start_as_this_one_was_started(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _, path: path or None)
    job = finished("out")
    assert commands(job, "/venv/bin/sess-ray")["look:"][:2] == ["/venv/bin/sess-ray", "gallery"]
    assert commands(job, "jobs/explain_dataset.py")["look:"][:4] == [sys.executable, "-m", "sess_ray", "gallery"]
    assert commands(job, "jobs/explain_dataset.py", PATH="/bin")["look:"][:2] == ["sess-ray", "gallery"]
    under_uv = commands(job, "/venv/bin/sess-ray", PATH="/venv/bin", UV_RUN_RECURSION_DEPTH="1")
    assert under_uv["look:"][:4] == ["uv", "run", "sess-ray", "gallery"]
    assert under_uv["evaluate:"][:6] == ["uv", "run", "--extra", "evaluate", "sess-ray", "evaluate"]


def blocks(*blocks):
    """Return what is known of a run after blocks of (seconds after the start, images, of the actor, failed stages)."""
    summary = Summary()
    for seconds, images, spent, failed in blocks:
        counts = dict.fromkeys(("maps", "patches", "kept", "windows"), 10 * images)
        counts |= {"images": images, "errors": len(failed), "failed": failed, "actor_seconds": spent, "actors": 2}
        summary.add(counts, seconds)
    return summary


def test_how_fast_a_run_is_counts_from_its_first_rows():
    """Ten seconds go by until workers have started; then two actors make 4 images in 4 s, at work 6 of their 8 s."""
    first = (10.0, 4, 3.0, [])
    assert speed_of(blocks(first), 24).startswith("0.4 images/s, 50 s left, 4 windows/s, 100% kept, 0 errors")
    later = blocks(first, (12.0, 2, 4.0, ["decode"]), (14.0, 0, 2.0, ["read"]))
    assert speed_of(later, 24) == (
        "1 images/s, 16 s left, 2 actors 75% busy, 4 windows/s, 100% kept, 2 errors (decode: 1, read: 1)"
    )
    assert "left" not in speed_of(later, None) + speed_of(later, 8)
    assert later.busy == 0.75
    assert speed_of(blocks((0.0, 0, 0.0, ["read"])), 3) == "0 images/s, 1 error (read: 1)"


@pytest.mark.parametrize("total", [5, None])
def test_a_log_gets_a_line_now_and_then_without_controls(total, monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    line, now = command.bar("image", total, speed=""), [0.0]
    line._time, line.start_t, line.last_print_t = (lambda: now[0]), 0.0, 0.0
    for seconds in (1, 29, 31, 40, 62):
        now[0] = seconds
        line.set_postfix_str(f"after {seconds}", refresh=False)
        line.update(1)
    line.close()
    of = f"/{total}" if total else ""
    lines = told.getvalue().splitlines()
    assert [text.partition(",")[0] for text in lines] == [f"{n}{of} images" for n in (0, 3, 5)]
    assert [text.rpartition(", ")[2] for text in lines[1:]] == ["after 31", "after 62"]
    assert told.getvalue().replace("\n", "").isprintable()
