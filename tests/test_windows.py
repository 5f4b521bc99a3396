from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sess_ray import SessError
from sess_ray.windows import fitted, needed, sess_plan, whole_plan
from tests import literal

sides = st.integers(1, 1500)
SHAPES = [(300, 300), (300, 150), (150, 300), (1000, 100), (100, 1000)]


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


@given(sides, sides, st.integers(16, 300), st.integers(16, 300), st.integers(1, 4))
def test_windows_that_are_not_square(height, width, down, across, num_scales):
    """They cover every scale; the first scale is the smallest that holds one; and all of it may be transposed."""
    if max(height * across, width * down) > 20 * min(height * across, width * down):
        return
    plan = sess_plan(height, width, (down, across), num_scales)
    assert [(scale.height, scale.width) for scale in plan.scales] == literal.scaled_sizes(
        height, width, (down, across), num_scales
    )
    first = plan.scales[0]
    assert (first.height, first.width) >= (down, across)
    assert first.height == down or first.width == across
    for scale in plan.scales:
        assert scale.height - scale.ys[-1] == down
        assert scale.width - scale.xs[-1] == across
        assert all(0 < second - one <= down for one, second in pairwise(scale.ys))
        assert all(0 < second - one <= across for one, second in pairwise(scale.xs))
    turned = sess_plan(width, height, (across, down), num_scales)
    assert [(scale.width, scale.height, scale.xs, scale.ys) for scale in turned.scales] == [
        (scale.height, scale.width, scale.ys, scale.xs) for scale in plan.scales
    ]
    if down == across:
        assert plan.scales == sess_plan(height, width, down, num_scales).scales


@pytest.mark.parametrize("window", [224, (256, 128), (32, 256)])
def test_what_is_needed_of_an_image_is_the_largest_short_side_of_its_scales(window):
    short, _ = needed(window, 6, 1000)
    shorter = [min(last.height, last.width) for last in (sess_plan(*size, window, 6).scales[-1] for size in SHAPES)]
    assert max(shorter) == short


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
