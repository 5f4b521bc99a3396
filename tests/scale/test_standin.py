"""The graph on logical GPUs: a short run of what `python -m tests.scale.standin` measures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scale.standin import busy_share

ROOT = Path(__file__).parents[2]


def test_whole_blocks_go_to_actors_that_have_gpus():
    """In a process of its own: the session that the tests share has no GPUs."""
    load = ["--processes", "2", "--calls", "2", "--milliseconds", "5", "--images", "128"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.scale.standin", *load], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "4 logical GPUs in 2 processes, 5 ms an image" in done.stdout
    assert "64 blocks, 128 images" in done.stdout
    assert 0 < float(re.search(r"busy (\S+),", done.stdout)[1]) <= 1


def test_the_busy_share_is_that_of_the_time_when_all_have_begun_and_none_is_done():
    def note(lane, begin, end, busy):
        return {"lane": lane, "begin": begin, "end": end, "busy": busy}

    alone = [note("a", 0, 2, 2)]  # before the other lane has begun
    both = [note("a", 2, 4, 2), note("b", 2, 4, 1)]
    late = [note("b", 4, 9, 5)]  # when the first has no work any more
    assert busy_share([*alone, *both, *late], 2) == pytest.approx((0.75, 1.0))
