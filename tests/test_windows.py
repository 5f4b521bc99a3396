from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sess_ray import SessError
from sess_ray.windows import fitted, sess_plan, whole_plan
from tests import literal

sides = st.integers(1, 1500)


@pytest.mark.parametrize(("step", "count"), [(224, 122), (112, 303)])
def test_the_papers_counts_of_a_square_image(step, count):
    assert sess_plan(500, 500, 224, 12, step).num_patches == count


@given(sides, sides, st.integers(16, 300), st.integers(1, 4), st.integers(1, 400))
def test_windows_are_those_of_the_literal_definition(height, width, window, num_scales, step):
    if max(height, width) > 20 * min(height, width):
        return
    step = max(step, 16)
    plan = sess_plan(height, width, window, num_scales, step)
    sizes = literal.scaled_sizes(height, width, window, num_scales)
    assert [(scale.height, scale.width) for scale in plan.scales] == sizes
    expected = [(i, y, x) for i, size in enumerate(sizes) for y, x in literal.windows(*size, window, step)]
    assert plan.positions() == expected
    assert plan.num_patches == len(expected)


def test_the_scale_of_an_exact_multiple_has_no_window_twice():
    plan = sess_plan(448, 896, 224, 1, 112)
    assert plan.scales[0].xs == (0, 112, 224)


def test_without_sess_the_whole_image_is_one_window():
    plan = whole_plan(480, 640, 224)
    assert (plan.num_patches, plan.scales[0].height, plan.scales[0].width) == (1, 224, 224)


def test_an_empty_image_is_refused():
    with pytest.raises(SessError, match="0 x 5 pixels"):
        sess_plan(5, 0, 224, 12, 224)


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((300, 400), None, (300, 400)),
        ((300, 400), 400, (300, 400)),
        ((300, 400), 399, (299, 399)),
        ((3000, 4000), 1024, (768, 1024)),
        ((4000, 3000), 1024, (1024, 768)),
        ((5, 4000), 100, (1, 100)),
    ],
)
def test_the_longer_side_is_limited_and_the_shorter_follows(size, most, expected):
    assert fitted(*size, most) == expected
