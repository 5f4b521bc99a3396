"""Files of a finished span that become one: what is in it, and what readers see at any moment."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray.errors import RunError
from sess_ray.io.compaction import Limits, compact
from sess_ray.io.held import held, settled
from sess_ray.io.ledger import read_ledger
from sess_ray.io.pieces import generations, newest, piece, piece_of
from sess_ray.io.store import Store, whole
from tests.io.scattering import FAILED, IDS, blocks, contents, files, filled, keep, rows_of, seen


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 64])
def test_however_a_span_was_cut_its_joined_files_are_the_same(spans, tmp_path, step):
    found = []
    for seed, count in ((0, 7), (1, 7), (2, 40)):
        store = filled(tmp_path / f"{seed}", blocks(seed, count))
        compact(store, spans, 0, files(store, spans), Limits(group_rows=10, step=step))
        found.append(contents(store))
        assert held(store, spans).finished == {0}
        assert not held(store, spans).scattered
    assert found[0] == found[1] == found[2]
    maps, errors = sorted(found[0], reverse=True)
    assert pq.read_table(store.url / errors)["image_id"].to_pylist() == [IDS[5], IDS[31]]
    expected = [row for name in IDS if name not in FAILED for row in rows_of(name)]
    file = pq.ParquetFile(store.url / maps)
    assert file.read().select(["image_id", "target", "saliency", "model"]).to_pylist() == [
        {key: row[key] for key in ("image_id", "target", "saliency", "model")} for row in expected
    ]
    assert piece_of(maps.name) == piece(0, [n for n in range(40) if n not in (5, 31)], 38, len(expected), 1)
    groups = [file.read_row_group(number)["image_id"].to_pylist() for number in range(file.num_row_groups)]
    assert len(groups) == {3: 7, 64: 2}[step]
    assert not any(before[-1] == after[0] for before, after in pairwise(groups))


def killed(store, spans, tmp_path, at):
    """Join the files, and put back those that are not yet removed by a run that is killed at the `at`-th."""
    before = files(store, spans)
    shutil.copytree(store.url, tmp_path / "before")
    compact(store, spans, 0, before)
    for name in before[at:]:
        shutil.copy(tmp_path / "before" / name, Path(store.url, name))
    return before[at:]


@pytest.mark.parametrize("at", [0, 4, 8])
def test_nobody_sees_a_row_twice_or_misses_it_whenever_a_run_is_killed(scattered, spans, tmp_path, at):
    store, expected = scattered
    left = killed(store, spans, tmp_path, at)
    assert len(left) == 9 - at
    assert sorted(seen(store)) == expected
    found = held(store, spans)
    assert (found.finished, found.images, found.errors, found.rows) == ({0}, 38, 2, {0: 40})
    assert sorted(found.disputed[0][2:]) == sorted(left)
    joined = [name for name in contents(store) if "-g1" in name.name]
    assert (settled(store, spans).disputed, sorted(contents(store))) == ({}, sorted(joined))
    assert sorted(seen(store)) == expected


def test_a_run_that_holds_ids_removes_what_was_left_too(scattered, spans, tmp_path):
    store, expected = scattered
    killed(store, spans, tmp_path, 2)
    assert read_ledger(store, repair=False).images == 38
    assert len(contents(store)) == 9
    ledger = read_ledger(store)
    assert (ledger.images, ledger.errors.num_rows, len(contents(store))) == (38, 2, 2)
    assert sorted(seen(store)) == expected


def test_a_process_that_dies_while_it_removes_is_followed_by_one_that_goes_on(scattered, spans, tmp_path):
    store, expected = scattered
    before = files(store, spans)
    killed(store, spans, tmp_path, 4)
    compact(store, spans, 0, before)
    assert len(contents(store)) == 2
    assert sorted(seen(store)) == expected


def test_a_late_writer_does_no_harm(scattered, spans):
    """It writes an old block again; and one with an image that had failed, for which there is a map now."""
    store, expected = scattered
    compact(store, spans, 0, files(store, spans))
    keep(store, blocks(0, 7)[0])
    assert sorted(seen(store)) == expected
    keep(store, [IDS[31], IDS[32]], failed=())
    assert sorted(seen(store)) == expected
    assert settled(store, spans).finished == {0}
    assert len(newest(store.files("maps", ".parquet"))) == len(store.files("maps", ".parquet")) == 2
    without = [row for row in expected if row[0] != IDS[31]]
    assert sorted(seen(store)) == sorted(
        without + [(IDS[31], r["target"], r["saliency"]["bytes"]) for r in rows_of(IDS[31])]
    )


def test_rows_that_only_a_late_writer_has_are_kept(scattered, spans):
    """Another run has explained a block, while this one joined what was there before."""
    store, _ = scattered
    store.clear(["errors"])
    late = blocks(0, 7)[3]
    for name in store.tables("maps"):
        if set(store.read_table(name)["image_id"].to_pylist()) <= set(late):
            store.remove(name)
    compact(store, spans, 0, store.tables("maps"))
    keep(store, late)
    missing = 40 - len(FAILED) - len(set(late) - FAILED)
    assert held(store, spans).images == missing
    found = settled(store, spans)
    assert (found.images, found.disputed) == (38, {})
    assert not [name for name in store.tables("maps") if "-g1" not in name]


def test_a_span_that_is_begun_again_goes_on_in_the_generation_that_it_has(scattered, spans):
    """As with --retry-errors: what is written then neither hides what is there nor is hidden by it."""
    store, expected = scattered
    compact(store, spans, 0, files(store, spans))
    store.clear(["errors"])
    found = held(store, spans)
    assert (found.rows, list(found.files), found.finished) == ({0: 38}, [0], set())
    beside = generations(found.files[0])
    assert beside == (1, 0)
    keep(store, sorted(FAILED), failed=[IDS[31]], generation=beside)
    again = files(store, spans)
    assert len(again) == 3
    compact(store, spans, 0, again)
    assert [piece_of(name).generation for name in store.tables("maps") + store.tables("errors")] == [2, 0]
    more = [(IDS[5], r["target"], r["saliency"]["bytes"]) for r in rows_of(IDS[5])]
    assert sorted(seen(store)) == sorted([row for row in expected if row[0] != IDS[5]] + more)
    [name] = store.tables("maps")
    ids = store.read_table(name)["image_id"].to_pylist()
    assert list(dict.fromkeys(ids)) == [name for name in IDS if name != IDS[31]]


def test_what_cannot_be_joined_stays_as_it_is(scattered, spans):
    store, expected = scattered
    found = files(store, spans)
    name = found[0]
    table = store.read_table(name)
    store.replace_table("maps", Path(name).stem, table.slice(1))
    with pytest.raises(RunError, match="do not say what they hold"):
        compact(store, spans, 0, found)
    store.replace_table("maps", Path(name).stem, table)
    assert sorted(seen(store)) == expected
    assert not [path for path in Path(store.url).rglob("*") if path.name.startswith(".writing")]
    store.remove(name)
    with pytest.raises(FileNotFoundError, match="is gone"):
        compact(store, spans, 0, found)


def test_a_store_far_away_gets_the_file_whole():
    store = Store("memory://joined")
    with whole(store, "maps") as begun:
        pq.write_table(pa.table({"image_id": ["a"]}), begun.path)
        begun.name = "maps/a.parquet"
        assert store.tables("maps") == []
    assert store.read_table("maps/a.parquet")["image_id"].to_pylist() == ["a"]
    with pytest.raises(ZeroDivisionError):
        _dies_in_the_middle(store)
    assert store.tables("maps") == ["maps/a.parquet"]


def test_files_far_away_are_joined(spans):
    store = filled("memory://far", blocks(1, 7))
    expected = sorted(seen(store))
    compact(store, spans, 0, files(store, spans))
    assert [len(store.files(folder, ".parquet")) for folder in ("maps", "errors")] == [1, 1]
    assert sorted(seen(store)) == expected
    store.clear()


def _dies_in_the_middle(store):
    with whole(store, "maps") as begun:
        Path(begun.path).write_bytes(b"half")
        begun.name = "maps/b.parquet"
        raise ZeroDivisionError
