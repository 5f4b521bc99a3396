"""How the tasks of a run are cut: fair to the actors, few for the driver, and what lies in one file together."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sess_ray import SESS, SessError, load_model
from sess_ray.pipeline.cluster.rows import TABLE_BYTES, tables
from sess_ray.pipeline.cluster.session import block_bytes
from sess_ray.pipeline.explain.blocks import BLOCK_ROWS, BLOCKS, MAX_BLOCK_ROWS, block_sizes, blocks, most_rows
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.stages import DECODED, EXPLAINED, TASKS

RAMP = 9  # blocks of 1, 2, 4, ... 256 images


def cut(uris, actors, **limit):
    tasks = pa.table({name: [None] * len(uris) if name != "uri" else uris for name in TASKS.names}, TASKS)
    found = blocks(tasks, actors, **limit)
    assert [uri for block in found for uri in block["uri"].to_pylist()] == uris
    return [block.num_rows for block in found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "actors", "largest"),
    [
        (6, 2, 2),
        (640, 2, 32),
        (10_000, 2, BLOCK_ROWS),
        (100_000, 2, 98),
        (100_000, 1000, 32),
        (600_000, 2, MAX_BLOCK_ROWS),
    ],
)
def test_blocks_are_few_and_fair(images, actors, largest):
    sizes = cut([f"s3://bucket/{number}.jpg" for number in range(images)], actors)
    assert max(sizes) == largest
    if largest == 98:
        assert len(sizes) <= BLOCKS + RAMP


@pytest.mark.slow
def test_the_first_block_is_one_image_and_the_next_ones_grow():
    assert cut([f"{number}.jpg" for number in range(640)], 2)[:7] == [1, 2, 4, 8, 16, 32, 32]
    assert cut([f"{number}.jpg" for number in range(600_000)], 2)[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize(("images", "most"), [(40, 10), (400, 20)])
@pytest.mark.parametrize("name", ["{}.jpg", "a.parquet#{}"])
def test_files_are_few_also_of_few_images(images, most, name):
    sizes = cut([name.format(number) for number in range(images)], 2)
    assert len(sizes) <= most
    assert sizes[0] <= 13  # rows of a file together
    assert sizes[-1] <= max(1, images // 32)  # in the end no actor waits long for another


def test_sizes_are_those_of_the_blocks():
    for images in (1, 2, 7, 40, 999):
        assert block_sizes(images, 3) == cut([f"{number}.jpg" for number in range(images)], 3)
        assert block_sizes(images, 3, packed=True) == cut([f"a.parquet#{number}" for number in range(images)], 3)


@pytest.mark.parametrize(
    ("method", "scales", "passes"),  # of an image of 500 x 375: its windows, and those of the 32 that are kept
    [
        ("gradcam", 12, 157),
        ("groupcam", 12, 157 + 32 * 33),
        ("sscam", 12, 157 + 32 * 10 * 512),
        ("rise", 12, 157 + 32 * 6000),
        ("rise", 0, 1 + 6000),
        ("tests.fragile:brightness", 12, 157 + 32),
    ],
)
def test_blocks_of_slow_methods_are_small(method, scales, passes):
    rows = most_rows(ExplainConfig(method=method, num_scales=scales), 224, actors=2)
    assert rows == min(MAX_BLOCK_ROWS, max(1, 2**17 // passes))
    sizes = cut([f"{number}.jpg" for number in range(3000)] + ["a.parquet#1"] * 600, 1, most=rows)
    assert max(sizes) == min(rows, 225)


@pytest.mark.parametrize("actors", [16, 64, 256, 500, 1000])
def test_one_driver_feeds_many_gpus(actors):
    """At 20 ms an image, photographs of 500 x 375 are no more blocks a second than the driver passes."""
    photographs = min(block_bytes(actors) // (375 * 500 * 3), most_rows(ExplainConfig(), 224, actors))
    assert actors / 0.02 / photographs <= 28
    assert photographs * 0.02 <= 45  # seconds of a GPU that are lost with it


def test_slow_methods_stay_short_among_many():
    assert most_rows(ExplainConfig(method="rise"), 224, 1000) <= 4


@pytest.mark.parametrize(
    ("settings", "ratio", "fade"),
    [
        ({}, 0.0, 0.1),
        ({"method": "gradcam++"}, 0.0, 0.1),
        ({"method": "shapleycam"}, 0.0, 0.1),
        ({"method": "gradient"}, 0.5, 0.0),
        ({"method": "smoothgrad"}, 0.8, 0.25),
        ({"method": "groupcam"}, 0.8, 0.25),
        ({"method": "tests.fragile:brightness"}, 0.8, 0.25),
        ({"method": "groupcam", "fusion": "reference"}, 0.8, 0.0),
        ({"method": "groupcam", "num_scales": 0}, 0.0, 0.0),
        ({"fusion": "reference"}, 0.0, 0.0),
        ({"pre_filter_ratio": 0.9}, 0.9, 0.1),
        ({"method": "groupcam", "pre_filter_ratio": 0.0}, 0.0, 0.25),
        ({"method": "groupcam", "fade": 0.0}, 0.8, 0.0),
        ({"fade": 0.2}, 0.0, 0.2),
    ],
)
def test_what_is_not_given_is_the_methods_own(settings, ratio, fade):
    config = ExplainConfig(**settings)
    assert (config.ratio(), config.fades()) == (ratio, fade)
    sess = SESS(load_model("tests.fragile:model"), device="cpu", **config.explainer_options())
    assert (sess.pre_filter_ratio, sess.fade) == (ratio, fade)
    assert sess.plan(300, 400).fade == fade


def test_fading_is_not_the_references():
    with pytest.raises(SessError, match=r"--fade 0\.2: --fusion reference has no fading: leave out one of the two"):
        ExplainConfig(fusion="reference", fade=0.2)


def test_rows_of_one_parquet_file_are_read_together_and_shards_alone():
    packed = [f"a.parquet#{row}" for row in range(600)] + [f"b.parquet#{row}" for row in range(40)]
    assert cut([*packed, "c.tar", "d.tar", "e.jpg", "f.jpg"], 1) == [*[41] * 14, 26, 40, 1, 1, 2]


@pytest.mark.parametrize(
    ("schema", "of"),
    [(DECODED, lambda size: {"pixels": bytes(size)}), (EXPLAINED, lambda size: {"maps": [{"levels": bytes(size)}]})],
)
def test_rows_share_tables_of_some_megabytes(schema, of):
    sizes = [1, TABLE_BYTES // 2, TABLE_BYTES // 2, 3 * TABLE_BYTES, 0, 5]
    rows = [{"image_id": str(number), **of(size)} for number, size in enumerate(sizes)]
    rows[4] = {"image_id": "4", "error": "no image"}
    found = list(tables(rows, schema))
    assert [table["image_id"].to_pylist() for table in found] == [["0", "1", "2"], ["3"], ["4", "5"]]
    assert all(table.schema == schema and table["image_id"].num_chunks == 1 for table in found)
    assert list(tables([], schema)) == []
