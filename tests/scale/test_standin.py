"""A short run of what `python -m tests.scale.standin` measures."""

from __future__ import annotations

import pytest
from ray.data import DataContext

from tests.scale.standin import Load, busy_share, measure


@pytest.mark.usefixtures("ray_session")
def test_all_images_pass_through_the_graph(tmp_path, monkeypatch):
    """On the session that the tests share; graphs with GPUs run in tests/infra."""
    context = DataContext.get_current()
    monkeypatch.setattr(context, "wait_for_min_actors_s", context.wait_for_min_actors_s)  # what is set here goes again
    found = measure(Load(processes=2, calls=2, seconds=0.005, images=128), tmp_path)
    assert found.rows == 128
    assert 0 < found.busy <= found.held <= 1
    assert found.blocks == 17  # of 2 lanes in 2 processes: 1, 2, 4, 8, 16 images, then a lane's share of what is left
    assert set(found.others) == {"actors", "tasks", "ray"}


def test_the_busy_share_is_that_of_the_time_when_all_have_begun_and_none_is_done():
    def note(lane, begin, end, busy):
        return {"lane": lane, "begin": begin, "end": end, "busy": busy}

    alone = [note("a", 0, 2, 2)]  # before the other lane has begun
    both = [note("a", 2, 4, 2), note("b", 2, 4, 1)]
    late = [note("b", 4, 9, 5)]  # when the first has no work any more
    assert busy_share([*alone, *both, *late], 2) == pytest.approx((0.75, 1.0))
