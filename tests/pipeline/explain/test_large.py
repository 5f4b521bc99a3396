"""Manifests whose ids nobody holds: explained, stopped and gone on with span by span, to the same maps."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sess_ray import load_model
from sess_ray.access import Access
from sess_ray.errors import RunError
from sess_ray.io import spans
from sess_ray.io.held import Held, held, settled
from sess_ray.io.pieces import piece, piece_of
from sess_ray.io.store import Store
from sess_ray.pipeline.explain import job as module
from sess_ray.pipeline.explain.blocks import fast_rows
from sess_ray.pipeline.explain.compacting import Compaction
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.lines import MOST_LINES, lines
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.explain.source import Source
from sess_ray.pipeline.explain.stages import EXPLAINED, write
from tests.pipeline.explain.jobs import picture, quickly, rows

MODEL = "tests.fragile:model"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Eleven images in thirteen rows: with targets, labels, both and neither; of one there is no file."""
    folder = tmp_path_factory.mktemp("large")
    for number in range(11):
        if number != 5:
            (folder / f"{number}.png").write_bytes(picture(number))
    said = [(f"{n}", None, None) for n in range(4)] + [("4", ["1"], None), ("4", ["2"], None), ("4", ["0"], None)]
    said += [("5", ["1"], None), ("6", None, "2"), ("7", ["nan"], "1"), ("8", ["top2"], "0"), ("9", ["0", "1"], None)]
    said += [("10", None, "no such class")]
    columns = {
        "id": [name for name, _, _ in said],
        "uri": [f"{name}.png" for name, _, _ in said],
        "targets": pa.array([targets for _, targets, _ in said], pa.list_(pa.string())),
        "label": pa.array([label for _, _, label in said], pa.string()),
    }
    pq.write_table(pa.table(columns), folder / "m.parquet", row_group_size=5)
    return folder / "m.parquet"


@pytest.fixture
def large(manifest, monkeypatch):
    """The manifest, of which spans have six rows: the border lies within an image."""
    monkeypatch.setattr(spans, "LARGE", 10)
    monkeypatch.setattr(spans, "LEAST_ROWS", 6)
    return {"input": str(manifest), "model": MODEL, "num_scales": 1, "overlays": 0, "actors": "1"}


def contents(output):
    return {path.relative_to(output): path.read_bytes() for path in Path(output).glob("*/*.parquet")}


def facts(output):
    maps = {(row["image_id"], row["target"]): (row["target_name"], row["saliency"]) for row in rows(output)}
    assert len(maps) == len(rows(output))
    return maps, {row["image_id"]: (row["stage"], row["error"]) for row in rows(output, "errors")}


@pytest.mark.usefixtures("ray_session")
def test_a_large_manifest_gives_what_a_small_one_gives_and_goes_on(manifest, large, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as small:
        small.setattr(spans, "LARGE", 100)
        quickly(input=str(manifest), output=str(tmp_path / "small"))
    maps, errors = facts(tmp_path / "small")
    assert (len(maps), len(errors)) == (13, 2)
    output = tmp_path / "large"
    first = run(prepare(ExplainConfig(**large, output=str(output), limit=3)))
    assert (first.images, first.total.images) == (3, 3)
    going_on = ExplainConfig(**large, output=str(output))
    job = prepare(going_on)
    assert (job.inputs, job.left, job.finished, job.tasks.num_rows) == (13, 10, 3, 0)
    in_the_end = []
    monkeypatch.setattr(module, "settled", lambda *given: in_the_end.append(held(*given)) or settled(*given))
    summary = run(job)
    assert facts(output) == (maps, errors)
    assert (summary.total.images, summary.total.maps, summary.total.errors) == (9, 13, 2)
    [found] = in_the_end
    assert (found.finished, found.scattered, found.disputed) == ({0, 1, 2}, {}, {})
    whole = contents(output)
    assert [(path.parent.name, path.name[:6]) for path in sorted(whole)] == [
        ("errors", "000001"),
        ("errors", "000002"),
        *(("maps", f"00000{span}") for span in range(2)),
    ]
    again = prepare(going_on)
    assert again.left == 0
    assert run(again).total == summary.total
    assert contents(output) == whole
    scatter(Store(str(output)))
    assert run(prepare(going_on)).total == summary.total
    assert sorted(contents(output).values()) == sorted(whole.values())
    scatter(Store(str(output)), wrong=1)
    before = contents(output)
    assert run(prepare(going_on)).total.images == summary.total.images
    assert contents(output) == before
    assert "are not joined, and stay small" in caplog.text


def scatter(store, wrong=0):
    """Cut the maps of the first span apart, behind its first image; say of the others that they are so many more."""
    name = store.tables("maps")[0]
    table, generation = store.read_table(name), piece_of(name).generation
    store.replace_table("maps", piece(0, range(1), 1, 1, generation).stem, table.slice(0, 1))
    store.replace_table("maps", piece(0, range(1, 6), 4, table.num_rows - 1 + wrong, generation).stem, table.slice(1))
    store.remove(name)


def test_what_is_written_beside_joined_files_counts_as_they_do(large, tmp_path):
    job = started(large, tmp_path / "out")
    job.store.replace_table("errors", piece(0, range(3), 3, generation=1).stem, pa.table({"image_id": ["0", "1", "2"]}))
    tasks = job.large.source.tasks(0, 0, 6, job.store.tables("errors"))
    assert [task["image_id"] for task in tasks] == ["3", "4"]
    failing = [{name: task[name] for name in ("image_id", "carried")} | {"error": "no"} for task in tasks]
    write(pa.Table.from_pylist(failing, EXPLAINED), Access(), job.store.location, "gradcam", "tiny")
    joined, beside = piece(0, range(3), 3, generation=1), piece(0, range(3, 6), 2, generation=1)
    assert {piece_of(name) for name in job.store.tables("errors")} == {joined, beside}


def test_who_has_lost_an_output_joins_nothing_there(large, tmp_path):
    def lost():
        raise RunError("another run has taken over")

    job = started(large, tmp_path / "out")
    job.store.replace_table("maps", piece(0, range(3), 3, 3).stem, pa.table({"image_id": ["0", "1", "2"]}))
    job.store.replace_table("maps", piece(0, range(3, 6), 2, 5).stem, pa.table({"image_id": ["3", *["4"] * 4]}))
    before = held(job.store, job.large.source.spans).scattered
    assert list(before) == [0]
    with pytest.raises(RunError), Compaction(job) as compaction:
        compaction.finish(before, lost)
    assert held(job.store, job.large.source.spans).scattered == before


def started(large, output):
    job = prepare(ExplainConfig(**large, output=str(output)))
    job.start()
    return job


def test_what_does_not_fit_is_held_by_its_ids(large, tmp_path):
    """An output of the version before, one with files of no span, and another manifest of the name."""
    job = started(large, tmp_path / "out")
    assert job.large
    told = json.loads((tmp_path / "out/started.json").read_text())
    assert told["spans"] == job.large.source.spans.told()
    store = Store(str(tmp_path / "out"))
    again = ExplainConfig(**large, output=store.url)
    assert prepare(again).large
    store.write_json("started.json", told | {"spans": told["spans"] | {"sha256": "another"}})
    assert prepare(again).tasks.num_rows == 11
    prepare(again).start()
    assert "spans" not in store.read_json("started.json")
    assert not prepare(again).large
    store.write_json("started.json", told)
    assert prepare(again).large
    one = pa.Table.from_pylist([{"image_id": "3"}])
    store.write_table("errors", one)
    assert prepare(again).tasks.num_rows == 10


def test_a_trial_looks_at_some(large, tmp_path):
    job = prepare(ExplainConfig(**large, output=str(tmp_path / "out"), dry_run=True))
    assert (job.left, job.tasks.num_rows, job.share) == (13, 11, 13 / 11)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("targets", ["top2", "0,2", "label"])
def test_what_all_share_is_known_to_the_driver(large, tmp_path, targets):
    job = prepare(ExplainConfig(**large, output=str(tmp_path / "out"), targets=targets))
    source = job.large.source
    assert (source.top, source.targets, job.large.declared is None) == {
        "top2": ("top2", None, True),
        "0,2": (None, [(0,), (2,)], True),
        "label": (None, None, False),
    }[targets]


def test_targets_are_as_the_driver_would_find_them(large, tmp_path):
    job = prepare(ExplainConfig(**large, output=str(tmp_path / "out"), dry_run=True))
    model, known = load_model(MODEL), {row["image_id"]: row for row in job.tasks.to_pylist()}
    tasks = [task for span in range(3) for task in job.large.source.tasks(span, 0, 13, None)]
    assert [task["image_id"] for task in tasks] == list(known)
    for task in tasks[:-1]:
        found = job.large.declared.of(task, model)
        expected = known[task["image_id"]]
        assert (
            expected["top"] == found if isinstance(found, str) else [tuple(one) for one in expected["targets"]] == found
        )


@pytest.mark.parametrize(
    ("count", "actors"),
    [
        (60_000, 2),
        pytest.param(10_000_000, 500, marks=pytest.mark.slow),
        pytest.param(10**8, 64, marks=pytest.mark.slow),
    ],
)
def test_lines_are_few_and_hold_every_row_once(count, actors):
    cut = spans.Spans("m.parquet", count, spans.size_of(count), "")
    source = Source(cut, "out", count)
    done = range(0, cut.count - 1, 2)
    half = Held(rows=dict.fromkeys(done, cut.size) | {1: 7}, finished=set(done), files={1: ["maps/x.parquet"]})
    found = [table.to_pylist()[0] for table in lines(source, half, actors, fast_rows(actors))]
    assert len(found) <= 2 * MOST_LINES + 16 * actors
    sizes = [line["end"] - line["begin"] for line in found]
    assert sizes[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256] or count < 10**6
    assert [line["files"] for line in found if line["span"] == 1] == [["maps/x.parquet"]]
    by_span: dict[int, list[tuple[int, int]]] = {}
    for line in found:
        by_span.setdefault(line["span"], []).append((line["begin"], line["end"]))
    assert sorted(by_span) == sorted(set(range(cut.count)) - half.finished)
    for span, parts in by_span.items():
        begin, end = cut.bounds(span)
        assert [begin, *(stop for _, stop in parts)] == [*(start for start, _ in parts), end]
    slow = lines(Source(cut, "out", 3000), Held(), actors, 64)  # a block shall have few images
    assert max(line["end"][0].as_py() - line["begin"][0].as_py() for line in slow) <= 64


def test_slow_methods_stay_short_in_a_large_pool_too():
    """There blocks of 600 images may be what a slow method is allowed, and no more."""
    cut = spans.Spans("m.parquet", 2_000_000, spans.size_of(2_000_000), "")
    begun = Held(rows={0: 7}, files={0: ["maps/x.parquet"]})
    found = pa.concat_tables(lines(Source(cut, "out", cut.rows), begun, 500, 600))
    sizes = pc.subtract(found["end"], found["begin"]).to_pylist()
    assert max(sizes) == 600
    assert sum(sizes) == cut.rows
