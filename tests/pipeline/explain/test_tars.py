"""Tar shards whose ids nobody holds: explained in any pieces, stopped anywhere and gone on with, to the same files."""

from __future__ import annotations

import io
import json
import random
import tarfile
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray.access import Access
from sess_ray.io.compaction import Limits, compact
from sess_ray.io.cuts import Shards, numbers_of
from sess_ray.io.held import held, settled
from sess_ray.io.pieces import Whole, generations, mark_of, piece_of
from sess_ray.io.reading import read_items
from sess_ray.io.store import Store
from sess_ray.pipeline.explain import stages, tars
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from tests.pipeline.explain.jobs import picture

IMAGES = {"a.tar": 7, "b.tar": 1, "c.tar": 12, "d.tar": 0, "e.tar": 5}
BAD = "c.tar/4.png"
CUT = "e.tar"  # ends early: of its last image and what follows there are errors


def tar(path, count, bad=()):
    with tarfile.open(path, "w") as shard:
        for number in range(count):
            content = b"no image" if number in bad else picture(number, (8, 6))
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for name, count in IMAGES.items():
        tar(folder / name, count, bad=[4] if name == "c.tar" else ())
    whole = (folder / CUT).read_bytes()
    (folder / CUT).write_bytes(whole[: 4 * 1024 + 600])
    return folder


@pytest.fixture
def settings(shards, tmp_path):
    return {"input": str(shards), "output": str(tmp_path / "out"), "model": "tests.fragile:model", "num_scales": 1}


def explained(row):
    """Return the row of `EXPLAINED` of an image of two targets: maps that are made of its name."""
    if row["error"] is not None:
        return stages.failed(row)
    draw = random.Random(row["image_id"])
    maps = [{"target": t, "target_classes": [t], "levels": draw.randbytes(48)} for t in (2, 1)]
    maps = [{**found, "num_scored": 1, "num_kept": 1} for found in maps]
    own = {name: row[name] for name in ("image_id", "uri", "carried", "height", "width", "rows", "columns")}
    return {**own, "maps": maps, "seconds": 0.0, "num_patches": 1, "num_forwards": 1}


def blocks(job, draw):
    """Yield the blocks of a run that are written: those of each shard, cut anywhere, in any order."""
    for line in job.large.lines(2, 512):
        read = stages.read_and_decode(line, Access(), 10**6, None, job.large.source)
        rows = [explained(row) for table in read for row in table.to_pylist()]
        cuts = sorted({0, len(rows), *(draw.randrange(len(rows) + 1) for _ in range(3))})
        own = [rows[begin:end] for begin, end in pairwise(cuts)]
        draw.shuffle(own)
        yield from (pa.Table.from_pylist(block, stages.EXPLAINED) for block in own)


def go(settings, draw, share=1.0, **more):
    """Run a job, which is killed after each of its blocks but a share of them; return it."""
    job = prepare(ExplainConfig(**settings, **more))
    if not job.config.dry_run:
        job.start()
        for block in blocks(job, draw):
            if draw.random() < share:
                stages.write(block, Access(), job.store.location, "gradcam", "tiny")
    return job


def joined(settings, limits=Limits()):  # noqa: B008
    """Join what is finished, as a run does; return the files."""
    store = Store(settings["output"])
    for span, files in settled(store, Shards()).scattered.items():
        compact(store, Shards(), span, files, limits)
    return {path.relative_to(store.url): path.read_bytes() for path in Path(store.url).glob("*/*.parquet")}


def same(found, quiet):
    """Compare files: joined ones byte for byte, those of a shard that was written in one piece row by row."""
    own, expected = (
        {(str(path.parent), piece_of(str(path)).span): (path, content) for path, content in files.items()}
        for files in (found, quiet)
    )
    assert len(own) == len(found)
    assert own.keys() == expected.keys()
    for key, (path, content) in own.items():
        other, other_content = expected[key]
        if "-g" in path.name and "-g" in other.name:
            assert content == other_content
        rows = [sorted(pq.read_table(io.BytesIO(one)).to_pylist(), key=str) for one in (content, other_content)]
        assert rows[0] == rows[1]


def ids(settings, folder):
    names = Store(settings["output"]).tables(folder)
    return [name for file in names for name in pq.read_table(f"{settings['output']}/{file}")["image_id"].to_pylist()]


@pytest.fixture(scope="module")
def quiet(shards, tmp_path_factory):
    """What a run leaves that nothing happens to."""
    output = str(tmp_path_factory.mktemp("quiet") / "out")
    settings = {"input": str(shards), "output": output, "model": "tests.fragile:model", "num_scales": 1}
    go(settings, random.Random(0))
    return joined(settings)


GOOD = {f"a.tar/{n}.png" for n in range(7)} | {"b.tar/0.png"} | {f"c.tar/{n}.png" for n in range(12)} - {BAD}
GOOD |= {f"e.tar/{n}.png" for n in range(4)}
WRONG = {BAD, "d.tar", "e.tar", "e.tar/4.png"}


def test_each_shard_is_a_span(settings, quiet):
    go(settings, random.Random(1))
    same(joined(settings), quiet)
    assert sorted(ids(settings, "maps")) == sorted([*GOOD, *GOOD])
    assert sorted(ids(settings, "errors")) == sorted(WRONG)
    pieces = [piece_of(str(path)) for path in quiet]
    assert {one.span for one in pieces} == set(numbers_of(IMAGES))
    names = [f"a.tar/{n}.png" for n in range(7)]
    [of_a] = [one for one in pieces if one.span == numbers_of(["a.tar"])[0]]
    assert of_a[1:5] == (7, 7, 14, mark_of(numbers_of(names)))
    assert of_a.whole == Whole(7, of_a.mark)


def test_what_is_finished_is_skipped_without_a_look_into_it(settings, monkeypatch):
    go(settings, random.Random(2))
    joined(settings)
    monkeypatch.setattr(Store, "open", lambda *_: 1 / 0)
    job = prepare(ExplainConfig(**settings))
    assert (job.left, job.inputs, job.finished) == (0, 5, 5)
    assert (job.large.held.images, job.large.held.maps, job.large.held.errors) == (len(GOOD), 2 * len(GOOD), len(WRONG))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_wherever_runs_are_killed_the_files_end_the_same(settings, quiet, seed):
    """Some of them leave volumes without the last file, or what a joined file stands for."""
    draw = random.Random(seed)
    for _ in range(4):
        go(settings, draw, share=0.5)
        if draw.random() < 0.5:
            joined(settings)
        late = draw.choice(sorted(Path(settings["output"]).glob("*/*.parquet")))
        if draw.random() < 0.3:
            late.unlink()  # a store that has lost its last minutes
    go(settings, draw)
    assert prepare(ExplainConfig(**settings)).left == 0
    same(joined(settings), quiet)
    assert sorted(ids(settings, "maps")) == sorted([*GOOD, *GOOD])
    assert sorted(ids(settings, "errors")) == sorted(WRONG)


@pytest.mark.slow
def test_what_two_runs_have_written_is_kept_once(settings, quiet):
    """One that seemed lost goes on: its blocks are others, and each has the last image and so says what there is."""
    go(settings, random.Random(3))
    job = prepare(ExplainConfig(**settings, overwrite=True))
    for block in blocks(job, random.Random(4)):
        stages.write(block, Access(), job.store.location, "gradcam", "tiny")
    found = held(job.store, Shards())
    assert found.crowded == set(numbers_of(["a.tar", "c.tar", "e.tar"]))
    same(joined(settings), quiet)


@pytest.mark.slow
def test_errors_are_explained_again(settings, quiet):
    go(settings, random.Random(5))
    joined(settings)
    trial = go(settings, random.Random(5), retry_errors=True, dry_run=True)
    assert (trial.left, sorted(set(ids(settings, "errors")))) == (3, sorted(WRONG))
    job = go(settings, random.Random(5), retry_errors=True)
    assert (job.left, job.begun) == (3, 11 + 4)
    assert job.tasks["image_id"].to_pylist() == ["c.tar", "d.tar", "e.tar"]
    same(joined(settings), quiet)
    assert {generations([str(path)]).maps for path in Path(settings["output"]).glob("maps/*")} <= {0, 1}


def test_shards_may_come_and_go(settings, shards, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("a.tar", "c.tar"):
        (folder / name).write_bytes((shards / name).read_bytes())
    settings["input"] = str(folder)
    go(settings, random.Random(6))
    (folder / "a.tar").unlink()
    tar(folder / "b.tar", 2)
    job = go(settings, random.Random(6))
    assert job.tasks["image_id"].to_pylist() == ["b.tar"]
    assert sorted(set(ids(settings, "maps"))) == sorted(
        {name for name in GOOD if name[0] in "ac"} | {"b.tar/0.png", "b.tar/1.png"}
    )
    tar(folder / "b.tar", 3)
    assert not prepare(ExplainConfig(**settings)).left  # it was finished; where it is not, what is new is seen
    for file in Path(settings["output"]).glob("*/*.parquet"):
        if (
            piece_of(file.name).span == numbers_of(["b.tar"])[0]
            and "b.tar/0.png" in pq.read_table(file)["image_id"].to_pylist()
        ):
            file.unlink()
    go(settings, random.Random(6))
    assert sorted(name for name in ids(settings, "maps") if name[0] == "b") == sorted(
        2 * [f"b.tar/{n}.png" for n in range(3)]
    )
    assert not prepare(ExplainConfig(**settings)).left


def test_what_does_not_fit_is_held_by_its_ids(settings, shards, tmp_path):
    """An output of the version before, one with files of no span, and shards among other files."""
    job = go(settings, random.Random(7), share=0.5)
    assert isinstance(job.large, tars.Tars)
    told = json.loads(Path(settings["output"], "started.json").read_text())
    assert told["spans"] == {"of": "tar shards"}
    job.store.write_json("started.json", {name: told[name] for name in told if name != "spans"})
    left = prepare(ExplainConfig(**settings))
    assert left.large is None
    done = {name for names in left.tasks["done"].to_pylist() for name in names or ()}
    assert {name.partition("/")[2] for name in ids(settings, "maps")} <= done
    job.store.write_json("started.json", told)
    assert prepare(ExplainConfig(**settings)).large
    job.store.write_table("errors", pa.table({"image_id": ["x"]}))
    assert prepare(ExplainConfig(**settings)).large is None
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.tar").write_bytes((shards / "a.tar").read_bytes())
    (folder / "1.png").write_bytes(picture(1))
    mixed = {**settings, "input": str(folder), "output": str(tmp_path / "other")}
    assert prepare(ExplainConfig(**mixed)).large is None


def test_a_trial_counts_what_is_done_of_a_shard(settings):
    go(settings, random.Random(8), share=0.5)
    before = joined(settings)
    job = go(settings, random.Random(8), dry_run=True)
    finished = job.large.held.finished
    assert job.begun == sum(rows for span, rows in job.large.held.rows.items() if span not in finished) > 0
    assert {path.relative_to(settings["output"]) for path in Path(settings["output"]).glob("*/*.parquet")} == set(
        before
    )


def test_images_of_a_shard_that_kills_its_worker_go_one_by_one(settings, shards):
    job = prepare(ExplainConfig(**settings))
    [line] = [line for line in job.large.lines(1, 1) if line["image_id"][0].as_py() == "c.tar"]
    rows = [row for table in stages._each(line, Access(), job.large.source) for row in table.to_pylist()]
    assert [row["content"] for row in rows] == read_items([f"{shards}/c.tar#{n}.png" for n in range(12)])
    alone = [stages.read_and_decode(pa.Table.from_pylist([row], stages.ALONE), Access(), 10**6) for row in rows]
    together = stages.read_and_decode(line, Access(), 10**6, None, job.large.source)
    assert pa.concat_tables([table for found in alone for table in found]).equals(pa.concat_tables(together))


def test_a_shard_of_which_nothing_can_be_explained_is_finished_by_its_error(settings, shards, tmp_path):
    places, targets = [f"{shards}/{name}.tar" for name in "ab"], [["no such class"], ["1"]]
    pq.write_table(pa.table({"uri": places, "targets": targets}), tmp_path / "m.parquet")
    settings["input"] = str(tmp_path / "m.parquet")
    go(settings, random.Random(9))
    assert prepare(ExplainConfig(**settings)).left == 0
    assert ids(settings, "errors") == places[:1]
    assert set(ids(settings, "maps")) == {f"{places[1]}/0.png"}
