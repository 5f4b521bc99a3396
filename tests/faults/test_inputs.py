"""Some damaged inputs of each kind; many more are `python -m tests.faults.inputs`."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time

import pytest

from tests.faults.inputs import KINDS, ODD, answered, coco, outcome, read_some, with_another_node

pytestmark = pytest.mark.slow


def talk(size, answers):
    answers.put("x" * size)  # more than a pipe holds


def stop():
    os._exit(3)


def test_a_document_is_changed_and_nothing_else():
    before = json.dumps(ODD)
    for number in range(300):
        json.dumps(with_another_node(random.Random(number), coco()))  # refuses what holds itself
    assert json.dumps(ODD) == before


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_refused_or_read(tmp_path, kind):
    counts, wrong = read_some(tmp_path, kind, 40, seed=2026)
    assert wrong == []
    assert counts.total() == 40
    assert len(counts) > 1  # they are damaged, and not all beyond reading


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [(talk, (200_000,), 200_000), (stop, (), None), (time.sleep, (60,), None)],
    ids=["says much", "ends without a word", "hangs"],
)
def test_it_ends_whatever_a_process_does(function, arguments, expected):
    context = multiprocessing.get_context("fork")
    done, answers = context.Value("i", 0), context.Queue()
    process = context.Process(target=function, args=(*arguments, *([answers] if function is talk else [])))
    process.start()
    found = answered(process, answers, done, seconds=1.5)
    assert (found and len(found)) == expected
    process.kill()
    process.join(10)


def test_what_is_wrong_is_seen(tmp_path, monkeypatch):
    def hang(*_):
        raise TimeoutError("it hangs")

    monkeypatch.setattr("tests.faults.inputs.list_images", hang)
    _, wrong = read_some(tmp_path, "manifests", 2, seed=1)
    assert wrong == [f"manifests {number}: TimeoutError: it hangs" for number in range(2)]
    (tmp_path / "m.csv").write_text("nothing")
    with pytest.raises(TimeoutError):
        outcome(tmp_path / "m.csv", "manifests")
