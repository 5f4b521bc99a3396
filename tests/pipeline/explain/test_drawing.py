"""Pictures of an output: as many as are asked for, also when all is explained."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sess_ray.io.maps import encode_map
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.drawing import Pictures
from sess_ray.pipeline.explain.stages import TASKS


@pytest.fixture
def output(tmp_path):
    """Five images and their maps, in two files."""
    store = Store(str(tmp_path / "out"))
    rows = []
    for number in range(5):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
        known = {"image_id": f"{number}.png", "uri": str(tmp_path / f"{number}.png"), "target": 1, "target_name": "x"}
        png = encode_map(np.zeros((30, 40), np.uint8))
        sizes = {"height": 30, "width": 40, "num_patches": 1, "num_kept": 1, "score": 0.5}
        rows.append({**known, **sizes, "saliency": {"bytes": png, "path": None}})
    for some in (rows[:2], rows[2:]):
        store.write_table("maps", pa.Table.from_pylist(some, MAPS))
    return store


def pictures(store, overlays, tasks=()):
    table = pa.Table.from_pylist(list(tasks), TASKS)
    return Pictures(SimpleNamespace(store=store, config=ExplainConfig(overlays=overlays), tasks=table))


def test_a_finished_run_is_drawn_as_far_as_is_asked_for(output):
    for asked, drawn, there in ((0, 0, 0), (2, 2, 2), (2, 0, 2), (20, 3, 5), (20, 0, 5)):
        found = pictures(output, asked)
        found.draw_finished(output.tables("maps"))
        assert (len(found.drawn), len(output.files("overlays", ".png"))) == (drawn, there)


def test_images_that_are_gone_are_tried_as_often_as_pictures_are_asked_for(output, tmp_path, monkeypatch):
    for number in range(5):
        (tmp_path / f"{number}.png").unlink()
    tried = []
    monkeypatch.setattr(
        "sess_ray.pipeline.explain.drawing.read_items", lambda uris: [tried.append(uris) or FileNotFoundError()]
    )
    found = pictures(output, 3)
    found.draw_finished(output.tables("maps"))
    assert (found.drawn, len(tried)) == ([], 3)


def test_an_image_is_read_where_its_task_says(output, tmp_path):
    """The row's own URI may lack a signature."""
    (tmp_path / "1.png").rename(tmp_path / "signed.png")
    [name] = [name for name in output.files("maps", ".parquet") if "1.png" in str(output.read_table(name))]
    found = pictures(output, 9, [{"image_id": "1.png", "uri": str(tmp_path / "signed.png")}])
    found.draw(name)
    assert len(found.drawn) == 2
