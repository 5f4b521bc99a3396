"""Files that say in their names which rows they hold."""

from __future__ import annotations

from sess_ray.io.pieces import mark_of, piece, piece_of


def test_a_mark_is_that_of_its_rows_alone():
    assert mark_of([3, 1, 2]) == mark_of(range(1, 4)) == (mark_of([1]) + mark_of([2, 3])) % 2**64
    sums = {mark_of([a, b]) for a in range(50) for b in range(a + 1, 50)}
    assert len(sums) == 50 * 49 / 2
    assert piece_of(f"maps/{piece(7, [3, 1], 1, 2).stem}.parquet") == piece(7, [1, 3], 1, 2)
    assert mark_of([0]) == 0xE220A8397B1DCDAF  # splitmix64's first number for the seed 0
