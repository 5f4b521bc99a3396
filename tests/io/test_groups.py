"""Rows of files by their row groups, and files some at a time."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray.io.groups import count_maps, group_of, read_rows, stream_tables
from sess_ray.io.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    (root / "maps").mkdir()
    for file in range(5):
        table = pa.table({"number": range(file * 100, file * 100 + 25), "other": [0] * 25})
        pq.write_table(table, root / "maps" / f"{file}.parquet", row_group_size=10)
    return Store(str(root))


@pytest.mark.parametrize(
    ("first", "count"), [(0, 25), (0, 10), (3, 4), (9, 2), (10, 10), (8, 17), (24, 1), (20, 99), (25, 3)]
)
def test_rows_of_any_place_are_read_with_their_row_groups(store, first, count):
    found = list(read_rows(store, "maps/2.parquet", first, count, ["number", "none"]))
    rows = [row["number"] for _, table in found for row in table.to_pylist()]
    assert rows == list(range(200 + first, 200 + min(25, first + count)))
    assert [number for number, _ in found] == [table["number"][0].as_py() - 200 for _, table in found]
    assert all(table.column_names == ["number"] for _, table in found)
    assert len(found) == len({row // 10 for row in rows})


def test_a_row_is_found_in_its_group(store):
    table, first = group_of(store, "maps/1.parquet", 17)
    assert (first, table["number"][17 - first].as_py(), len(table)) == (10, 117, 10)


def test_files_come_in_order_and_some_at_a_time(store, monkeypatch):
    read = []
    several = Store.read_tables
    monkeypatch.setattr(
        Store, "read_tables", lambda self, names, *rest: read.append(names) or several(self, names, *rest)
    )
    names = store.tables("maps")
    found = stream_tables(store, names, ["number"], at_once=2)
    name, table = next(found)
    assert (name, table["number"][0].as_py(), read) == (names[0], 0, [names[:2]])
    assert [name for name, _ in found] == names[1:]
    assert [len(some) for some in read] == [2, 2, 1]
    assert count_maps(store, names) == [25] * 5
