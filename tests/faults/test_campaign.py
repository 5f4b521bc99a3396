"""A short kill campaign; the long one is `python -m tests.faults.campaign`, and tests/cloud kills the store."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.bench import Bench
from tests.faults.campaign import run
from tests.faults.jobs import MISSED

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def bench():
    folder = Path(tempfile.mkdtemp(prefix="kill"))  # pytest's own are too long for sockets
    with closing(Bench(folder, images=16)) as bench:
        yield bench
    shutil.rmtree(folder)


def test_nothing_is_lost_and_nothing_twice(bench):
    """An actor is killed, then the driver stopped by Ctrl-C; the long campaign kills the driver, too."""
    row = run(bench, 0, "twice", seed=0)
    assert row.moment != MISSED
    assert row.attempts == 2
    assert row.rows == bench.clean_for("twice").rows == 34
    assert not row.is_wrong, row
