"""What the explain command says of a run, in plain words."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import pyarrow as pa
import pytest

from sess_ray.cli import explain as cli
from sess_ray.io.store import Store
from sess_ray.pipeline.explain.record import Summary, Total
from sess_ray.pipeline.explain.stages import TASKS


def job(uris, finished=0, output="out"):
    tasks = pa.table({name: [None] * len(uris) if name != "uri" else uris for name in TASKS.names}, TASKS)
    return SimpleNamespace(tasks=tasks, finished=finished, inputs=len(uris) + finished, store=Store(output), groups={})


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


@pytest.mark.parametrize("output", ["out", "my maps/of $1", "s3://bucket/run"])
def test_in_the_end_it_says_how_to_look(output, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = SimpleNamespace(url=output, path=lambda name: f"{output}/{name}")
    finished = SimpleNamespace(**{**vars(job([])), "store": store})
    cli._report(finished, Summary(total=Total(1, 2, 0)))
    [held, _, look] = capsys.readouterr().out.splitlines()
    assert held == "the output now holds 1 image, 2 maps, 0 errors"
    assert look.startswith("look:     sess-ray gallery --run ")
    assert shlex.split(look)[3:] == ["--run", f"sess={output}", "--output", f"{output}/gallery"]
    cli._report(finished, Summary(total=Total(0, 0, 2)))
    assert "look:" not in capsys.readouterr().out
