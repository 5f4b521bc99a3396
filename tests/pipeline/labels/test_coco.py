"""COCO's JSON of any number of images: sorted on a disk, and written row by row."""

from __future__ import annotations

import json
import random

import pytest

from sess_ray.pipeline.labels import coco
from sess_ray.pipeline.labels.coco import Sorted, write_coco


@pytest.mark.parametrize("rows_in_memory", [50_000, 7])
def test_rows_are_sorted_on_a_disk_and_written_as_json_writes_them(rows_in_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "ROWS", rows_in_memory)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    draw = random.Random(0)
    given = [
        {"image_id": f"{draw.randrange(20)}ä.jpg", "name": f"n{number}", "height": 2, "width": number}
        | {"objects": [json.dumps({"category_id": 1, "score": draw.random()}) for _ in range(draw.randrange(1, 3))]}
        for number in range(40)
    ]
    classes = {7: (1, 'two "words"')}
    with Sorted("image_id") as rows:
        for row in given:
            rows.add(row)
        expected = sorted(given, key=lambda row: row["image_id"])
        assert list(rows) == expected
        path, names = str(tmp_path / "coco.json"), str(tmp_path / "names.txt")
        write_coco(rows, classes, path, names)
    images = [
        {"id": number, "file_name": row["image_id"], "height": 2, "width": row["width"]}
        for number, row in enumerate(expected, 1)
    ]
    objects = [(number, json.loads(text)) for number, row in enumerate(expected, 1) for text in row["objects"]]
    annotations = [{"id": place, "image_id": number, **found} for place, (number, found) in enumerate(objects, 1)]
    categories = [{"id": 1, "name": 'two "words"', "target": 7}]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    assert (tmp_path / "coco.json").read_text() == json.dumps(whole)
    assert (tmp_path / "names.txt").read_text() == "".join(f"{row['name']}\n" for row in expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco.json", "names.txt"]


def test_nothing_is_a_file_as_well(tmp_path):
    write_coco([], {}, str(tmp_path / "coco.json"), str(tmp_path / "names.txt"))
    assert json.loads((tmp_path / "coco.json").read_text()) == {"images": [], "annotations": [], "categories": []}
