"""What an output of spans holds, found in the names of its files; and what it holds twice."""

from __future__ import annotations

import pytest

from sess_ray.io.held import held, images_in, settled
from sess_ray.io.pieces import piece
from sess_ray.io.store import Store
from tests.io.manifest import errors, maps, written


@pytest.fixture
def spans(tmp_path):
    return written(tmp_path / "m.parquet", list("abcdefghij"))


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


def keep(store, spans, names, failed=(), target=1):
    """Write files of the images of a span, as a block of them would be."""
    rows = {row["image_id"]: (span, own) for span in range(spans.count) for row, own in spans.images(span)}
    for folder, some, table in (
        ("maps", names, maps(*((name, target) for name in names))),
        ("errors", failed, errors(*failed)),
    ):
        if some:
            own = [row for name in some for row in rows[name][1]]
            stem = piece(rows[some[0]][0], own, len(some), len(some) if folder == "maps" else 0).stem
            store.replace_table(folder, stem, table)


def test_names_say_what_is_finished(store, spans):
    keep(store, spans, "ab", "c")
    keep(store, spans, "d")
    keep(store, spans, "ef")
    found = held(store, spans)
    assert (found.images, found.maps, found.errors) == (5, 5, 1)
    assert (found.finished, found.crowded, found.strangers) == ({0}, set(), 0)
    assert set(found.files) == {1}
    assert images_in(store, found.files[1]) == {"e", "f"}
    assert held(store, spans, ["maps"]).finished == set()
    store.write_table("maps", maps(("x", 1)))
    assert held(store, spans).strangers == 1


def test_a_row_twice_does_not_stand_for_one_that_is_missing(store, spans):
    keep(store, spans, "abc")
    keep(store, spans, "c")
    found = held(store, spans)
    assert (found.rows, found.finished, found.crowded) == ({0: 4}, set(), {0})
    again = settled(store, spans)
    assert (again.rows, again.finished, again.crowded, again.images) == ({0: 3}, set(), set(), 3)
    keep(store, spans, "d")
    assert settled(store, spans).finished == {0}


def test_what_is_held_twice_is_put_right(store, spans):
    """An image that failed at first keeps the map of its second time; files that are written again have other names."""
    keep(store, spans, "ab", "cd")
    keep(store, spans, "abc", "d")
    found = settled(store, spans)
    assert (found.images, found.maps, found.errors) == (3, 3, 1)
    assert found.finished == {0}
    assert sorted(images_in(store, store.tables("maps"))) == ["a", "b", "c"]
    assert sorted(images_in(store, store.tables("errors"))) == ["d"]
    files = store.tables("maps") + store.tables("errors")
    assert settled(store, spans).finished == {0}
    assert store.tables("maps") + store.tables("errors") == files


def test_what_is_written_again_may_have_the_name_of_what_goes(store, spans):
    """The last image of the second file stays, in a file of the third one's name, of which nothing stays."""
    for names in ("abc", "cd", "d"):
        keep(store, spans, names)
    assert settled(store, spans).finished == {0}
    assert sorted(images_in(store, store.tables("maps"))) == ["a", "b", "c", "d"]
