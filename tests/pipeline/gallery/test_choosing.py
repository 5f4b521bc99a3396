"""Which maps a gallery shows where not all are shown, and what it says of the others."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray import SessError
from sess_ray.access import Access
from sess_ray.io.maps import encode_map
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.gallery import job
from sess_ray.pipeline.gallery import prepare as preparing
from sess_ray.pipeline.gallery.config import GalleryConfig
from sess_ray.pipeline.gallery.prepare import prepare

COUNTS = {"sess": 60, "base": 45}


def rows_of(run):
    """Maps in any order, of images of which the other run has most."""
    draw = random.Random(COUNTS[run])
    keys = draw.sample([(f"{number:02}.jpg", target) for number in range(40) for target in (1, 2)], COUNTS[run])
    known = {"height": 4, "width": 4, "peak_x": 0, "peak_y": 0, "num_kept": 1, "num_patches": 1, "predicted": 1}
    for image_id, target in keys:
        levels = np.full((4, 4), 10 * target + COUNTS[run], np.uint8)
        yield {
            "image_id": image_id,
            "target": target,
            "uri": f"/{run}/{image_id}",
            "target_name": f"class {target}",
        } | {
            **known,
            "score": draw.random(),
            "saliency": {"bytes": encode_map(levels), "path": None},
        }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("gallery")
    evaluation, draw = Store(str(root / "evaluation")), random.Random(3)
    for run in COUNTS:
        rows = list(rows_of(run))
        (root / run / "maps").mkdir(parents=True)
        for file, first in enumerate(range(0, len(rows), 16)):
            table = pa.Table.from_pylist(rows[first : first + 16], MAPS)
            pq.write_table(table, root / run / "maps" / f"{file}.parquet", row_group_size=5)
        found = [
            {
                "image_id": row["image_id"],
                "target": row["target"],
                "label": "a",
                "pxap": draw.choice([None, draw.random()]),
            }
            for row in rows
        ]
        evaluation.write_table(f"results/{run}", pa.Table.from_pylist(found))
    evaluation.write_json("summary.json", {"config": {"run": [f"{run}={root / run}" for run in COUNTS]}})
    return root


def prepared(root, **settings):
    return prepare(
        GalleryConfig(run=tuple(f"{run}={root / run}" for run in COUNTS), output=str(root / "out"), **settings)
    )


def expected(keys):
    """Rows of some maps: where the first run that has it says, and where each has it."""
    found = {}
    for place, run in enumerate(COUNTS):
        for line, row in enumerate(rows_of(run)):
            if (key := (row["image_id"], row["target"])) in keys:
                known = found.setdefault(key, (row["uri"], [None, None]))
                known[1][place] = (f"maps/{line // 16}.parquet", line % 16)
    return [(*key, *found[key]) for key in sorted(found)]


def told(gallery):
    return [(row["image_id"], row["target"], row["uri"], row["places"]) for row in gallery.rows]


@pytest.mark.parametrize("limit", [None, 1, 7, 40, 1000])
def test_the_first_maps_are_those_of_all(root, limit, monkeypatch):
    whole = sorted({(row["image_id"], row["target"]) for run in COUNTS for row in rows_of(run)})
    gallery = prepared(root, limit=limit)
    assert told(gallery) == expected(whole[:limit])
    assert [row["number"] for row in gallery.rows] == list(range(len(whole[:limit])))
    assert (gallery.left_out() == "") == (limit in (None, 1000))
    monkeypatch.setattr(preparing, "MOST", 7)
    assert told(prepared(root)) == expected(whole[:7])


def test_what_is_not_shown_is_said_in_a_line(root):
    gallery = prepared(root, limit=7)
    shown = [sum(row["places"][place] is not None for row in gallery.rows) for place in range(2)]
    assert gallery.left_out() == (
        f"shown: {shown[0]} of the 60 maps of sess, {shown[1]} of the 45 maps of base, the first by name; "
        "--limit N or --worst N show others"
    )


@pytest.mark.parametrize("worst", [1, 9, 1000])
def test_the_worst_maps_are_those_of_the_evaluation(root, worst):
    results = [row for path in (root / "evaluation/results/sess").iterdir() for row in pq.read_table(path).to_pylist()]
    values = {(row["image_id"], row["target"]): row["pxap"] for row in results if row["pxap"] is not None}
    keys = sorted(values, key=lambda key: (values[key], key))[:worst]
    gallery = prepared(root, evaluation=str(root / "evaluation"), worst=worst)
    assert told(gallery) == expected(keys)
    [sess, base] = gallery.metrics
    assert sess["values"] == [round(values[row["image_id"], row["target"]], 4) for row in gallery.rows]
    assert (sess["run"], base["run"]) == ("sess", "base")
    assert "the worst by the evaluation" in gallery.left_out()
    with pytest.raises(SessError, match="--worst needs --evaluation"):
        prepared(root, worst=3)
    with pytest.raises(SessError, match="give either --limit or --worst"):
        prepared(root, worst=3, limit=3)


def test_maps_are_read_as_they_lie_and_shown_in_their_order(root, monkeypatch):
    read = []
    group_of = job.group_of
    monkeypatch.setattr(
        job, "group_of", lambda store, file, line: read.append((store.url, file)) or group_of(store, file, line)
    )
    gallery = prepared(root)
    runs = [str(root / run) for run in COUNTS]
    found = {}
    for block in job.blocks(gallery):
        for table in job.draw(block, Access(), runs, str(root / "drawn")):
            found |= {row["number"]: json.loads(row["row"]) for row in table.to_pylist()}
    assert sorted(found) == list(range(len(gallery.rows)))
    for number, row in found.items():
        known = gallery.rows[number]
        assert (row["id"], row["target"]) == (known["image_id"], known["target"])
        assert [one is not None for one in row["maps"]] == [place is not None for place in known["places"]]
    # In groups of five rows; 46 are read where images come as they are named.
    assert len([file for url, file in read if url == runs[0]]) == 32
