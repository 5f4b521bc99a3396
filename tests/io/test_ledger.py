"""What an output holds, and that it holds it once."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sess_ray import SessError
from sess_ray.io.ledger import read_ledger
from sess_ray.io.store import ERRORS, MAPS, Store


def maps(*keys):
    return pa.Table.from_pylist([{"image_id": name, "target": target} for name, target in keys], MAPS)


def errors(*names):
    return pa.Table.from_pylist([{"image_id": name, "stage": "read"} for name in names], ERRORS)


def held(store, folder, *columns):
    return sorted(
        tuple(row[name] for name in columns)
        for file in store.tables(folder)
        for row in store.read_table(file).to_pylist()
    )


def test_an_unused_output_holds_nothing(tmp_path):
    ledger = read_ledger(Store(str(tmp_path / "none")))
    assert (ledger.images, ledger.maps.num_rows, ledger.errors.num_rows, len(ledger.finished)) == (0, 0, 0, 0)


def test_what_is_held_twice_is_put_right(tmp_path):
    store = Store(str(tmp_path))
    store.write_table("maps", maps(("a", 1), ("a", 2), ("b", 1)))
    store.write_table("maps", maps(("b", 1), ("c", 1)))
    store.write_table("errors", errors("a", "d"))
    store.write_table("errors", errors("d", "e"))
    before = read_ledger(store, repair=False)
    assert (before.maps.num_rows, before.errors.num_rows) == (5, 4)
    ledger = read_ledger(store)
    assert (ledger.images, ledger.maps.num_rows) == (3, 4)
    assert sorted(ledger.finished.to_pylist()) == ["a", "b", "c", "d", "e"]
    assert held(store, "maps", "image_id", "target") == [("a", 1), ("a", 2), ("b", 1), ("c", 1)]
    assert held(store, "errors", "image_id") == [("d",), ("e",)]
    files = store.tables("maps")
    assert read_ledger(store).maps.num_rows == 4
    assert store.tables("maps") == files


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), min_size=1, max_size=4), max_size=4),
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3), max_size=3),
)
def test_any_mixture_ends_with_each_row_once(tmp_path_factory, of_maps, of_errors):
    store = Store(str(tmp_path_factory.mktemp("store")))
    for keys in of_maps:
        store.write_table("maps", maps(*keys))
    for names in of_errors:
        store.write_table("errors", errors(*names))
    read_ledger(store)
    keys = {key for some in of_maps for key in some}
    explained = {name for name, _ in keys}
    assert held(store, "maps", "image_id", "target") == sorted(keys)
    assert held(store, "errors", "image_id") == sorted(
        {(name,) for some in of_errors for name in some if name not in explained}
    )


def test_a_damaged_file_is_named(tmp_path):
    store = Store(str(tmp_path))
    store.write_table("maps", maps(("a", 1)))
    store.write("maps/x.parquet", b"PAR1 and no more")
    with pytest.raises(SessError, match=r"maps/x.parquet is damaged.*remove it, and run again"):
        read_ledger(store)
