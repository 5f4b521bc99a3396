"""Files of a finished span that become several, since one would be too large."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sess_ray.io import compaction
from sess_ray.io.compaction import Limits, compact
from sess_ray.io.held import held, settled
from sess_ray.io.pieces import generations, piece, piece_of
from sess_ray.io.store import Store
from tests.io.scattering import FAILED, IDS, blocks, contents, files, filled, keep, rows_of, seen

SMALL = Limits(group_rows=4, step=2, file_bytes=900)


def ordered(store):
    """Return the maps of the joined files in the order of their volumes, the last file last."""
    files = sorted(store.tables("maps"), key=lambda name: piece_of(name).volume or len(IDS))
    return [row for name in files for row in store.read_table(name).select(KEYS).to_pylist()]


KEYS = ["image_id", "target", "saliency"]


@pytest.mark.slow
def test_a_large_span_becomes_several_files_the_same_however_it_was_cut(spans, tmp_path):
    found = []
    for seed, count in ((0, 7), (1, 7), (2, 40)):
        store = filled(tmp_path / f"{seed}", blocks(seed, count))
        compact(store, spans, 0, files(store, spans), SMALL)
        found.append(contents(store))
        assert held(store, spans).finished == {0}
        assert not held(store, spans).scattered
        assert not held(store, spans).disputed
    assert found[0] == found[1] == found[2]
    expected = [{key: row[key] for key in KEYS} for name in IDS if name not in FAILED for row in rows_of(name)]
    assert ordered(store) == expected
    pieces = [piece_of(name) for name in store.tables("maps")]
    assert sorted(one.volume for one in pieces) == list(range(len(pieces)))
    assert len(pieces) > 5
    for name in store.tables("maps"):
        table = store.read_table(name)
        own = [len(row["saliency"]["bytes"]) for row in table.to_pylist()]
        assert sum(own) <= SMALL.file_bytes
        numbers = [IDS.index(name) for name in dict.fromkeys(table["image_id"].to_pylist())]
        one = piece_of(name)
        assert one == piece(0, numbers, len(numbers), len(own), 1, one.volume)
    [errors] = store.tables("errors")
    assert piece_of(errors).volume == 0


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 3, 7, 12, 17])
def test_nobody_sees_volumes_before_the_last_or_after_it_what_they_replace(scattered, spans, monkeypatch, at):
    """A run is killed after any of its writes and removals; the next one ends with the same files."""
    store, expected = scattered
    before = files(store, spans)
    left, real = [at], (compaction.whole, Store.remove)

    def spent(one):
        assert sorted(seen(store)) == expected
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt(one)  # nothing that a task does when it fails is done when it is killed

    @contextmanager
    def whole_until(*given):
        with real[0](*given) as begun:
            yield begun
            spent(begun.name)

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "whole", whole_until)
        patch.setattr(Store, "remove", lambda store, name: (spent(name), real[1](store, name)))
        with suppress(KeyboardInterrupt):
            compact(store, spans, 0, before, SMALL)
    assert sorted(seen(store)) == expected
    found = settled(store, spans)
    assert (found.finished, found.images, found.errors, found.disputed) == ({0}, 38, 2, {})
    assert sorted(seen(store)) == expected
    for span, names in found.scattered.items():
        compact(store, spans, span, names, SMALL)
    assert sorted(seen(store)) == expected
    whole_run = filled(Path(store.url).with_name("quiet"), blocks(0, 7))
    compact(whole_run, spans, 0, files(whole_run, spans), SMALL)
    assert contents(store) == contents(whole_run)


def test_other_programs_see_each_map_once_with_the_query_of_the_documentation(scattered, spans):
    duckdb = pytest.importorskip("duckdb")
    store, _ = scattered
    text = Path(__file__).parents[2].joinpath("docs/running.md").read_text()
    query = textwrap.dedent(text.partition("```sql")[2].partition("```")[0])

    def queried():
        return sorted(duckdb.sql(query.replace("out/maps", f"{store.url}/maps")).fetchall())

    expected = sorted(
        (row["image_id"], row["target"], None) for name in IDS if name not in FAILED for row in rows_of(name)
    )
    assert queried() == expected
    before = contents(store)
    compact(store, spans, 0, files(store, spans), SMALL)
    assert queried() == expected
    joined = contents(store)
    for last in (True, False):
        for path, content in (before | joined).items():
            Path(store.url, path).write_bytes(content)
        [final] = [path for path in joined if path.parts[0] == "maps" and not piece_of(str(path)).volume]
        if not last:
            Path(store.url, final).unlink()
        assert queried() == expected


def test_volumes_that_an_error_stops_are_removed(scattered, spans, monkeypatch):
    store, expected = scattered
    found, real = contents(store), compaction.whole

    @contextmanager
    def full(store, folder):
        with real(store, folder) as begun:
            yield begun
            if "v3" in begun.name:
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction, "whole", full)
    with pytest.raises(OSError, match="No space"):
        compact(store, spans, 0, files(store, spans), SMALL)
    assert contents(store) == found
    assert sorted(seen(store)) == expected


def test_a_span_in_volumes_is_begun_again(scattered, spans):
    """As with --retry-errors: volumes and what is written beside them become volumes of the next generation."""
    store, expected = scattered
    compact(store, spans, 0, files(store, spans), SMALL)
    store.clear(["errors"])
    found = held(store, spans)
    assert (found.rows, found.finished) == ({0: 38}, set())
    keep(store, sorted(FAILED), failed=[IDS[31]], generation=generations(found.files[0]))
    again = files(store, spans)
    compact(store, spans, 0, again, SMALL)
    assert {piece_of(name).generation for name in store.tables("maps")} == {2}
    assert not held(store, spans).scattered
    expected = [{key: row[key] for key in KEYS} for name in IDS if name != IDS[31] for row in rows_of(name)]
    assert ordered(store) == expected


def test_volumes_without_their_last_file_are_not_lost(scattered, spans):
    """Somebody has removed it: what is left counts as it would have, had nothing been joined."""
    store, expected = scattered
    compact(store, spans, 0, files(store, spans), SMALL)
    [last] = [name for name in store.tables("maps") if not piece_of(name).volume]
    gone = set(store.read_table(last)["image_id"].to_pylist())
    store.remove(last)
    assert store.tables("maps") == []
    found = settled(store, spans)
    assert (found.images, found.disputed, found.finished) == (38 - len(gone), {}, set())
    assert sorted(seen(store)) == [row for row in expected if row[0] not in gone]


def test_what_is_put_right_beside_volumes_without_a_last_file_does_not_make_them_count(scattered, spans):
    """A block was written again with another image, and a run was killed before the last volume."""
    store, expected = scattered
    before = contents(store)
    compact(store, spans, 0, files(store, spans), SMALL)
    joined = contents(store)
    for path in joined:
        if not piece_of(str(path)).volume:
            Path(store.url, path).unlink()
    for path, content in before.items():
        Path(store.url, path).write_bytes(content)
    keep(store, [*blocks(0, 7)[0], blocks(0, 7)[1][0]])
    found = settled(store, spans)
    assert (found.images, found.errors, found.finished, found.disputed) == (38, 2, {0}, {})
    assert sorted(seen(store)) == expected
    assert not [name for name in store.tables("maps") if piece_of(name).generation]
