"""Results that are made up, as they are read, and what a report tells of them."""

from __future__ import annotations

import random
from functools import partial

import pyarrow as pa

from sess_ray.pipeline.evaluate.judging import results_schema
from sess_ray.pipeline.evaluate.report import report

METRICS = ["pxap", "pointing_game", "max_box_acc", "pxap_pooled", "insertion_rise"]
SIZES = (None, "< 5 %", "> 25 %")


def rows(seed, count=120, images=50):
    """Rows of images with several targets, some of them twice, some without values."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        target = draw.randrange(-2, 4)
        row = {"image_id": f"{draw.randrange(images)}.jpg", "target": target, "label": f"class {abs(target)}"}
        row["insertion_rise"] = draw.choice([None, draw.random()])
        if size := draw.choice(SIZES):
            row |= {"size": size, "pxap": draw.random(), "pointing_game": float(draw.random() < 0.5)}
            row["max_box_acc"] = [float(draw.random() < 0.5) for _ in range(20)]
            row["pxap_pooled"] = [float(draw.randrange(9999)) for _ in range(202)]
        found.append(row)
    return found


def reading(found, at_once=1000, rows_of_files=1000):
    """What reads rows, so many at a time, in groups of files of so many."""
    table = pa.Table.from_pylist(found, results_schema(METRICS))
    cuts = range(0, len(table), rows_of_files)
    return [partial(chunks, table.slice(cut, rows_of_files), at_once) for cut in cuts]


def chunks(table, at_once, columns):
    return (table.select(columns).slice(at, at_once) for at in range(0, len(table), at_once))


def told(runs, call=None):
    lines = report(runs, METRICS, [("other", "base")], call)
    return {(line.run, line.base, line.group, line.value, line.metric): line.summary for line in lines}
