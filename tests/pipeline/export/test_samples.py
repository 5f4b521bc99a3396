"""What all exports have of a run: which images and maps, and in which form."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sess_ray import SessError
from sess_ray.io import file_parts
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.export.config import ExportConfig
from sess_ray.pipeline.export.formats import FORMATS
from sess_ray.pipeline.export.job import in_order
from sess_ray.pipeline.export.prepare import prepare
from sess_ray.pipeline.export.samples import KEPT, Recipe, portable, samples
from tests.pipeline.export.runs import DAMAGED, GONE, HEIGHT, NAMES, TARGETS, WIDTH, export, pixels, store_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return store_run(tmp_path_factory.mktemp("datasets"))


def all_samples(run, kinds=KEPT):
    checked = prepare(ExportConfig(run=run, output=f"{run}/none"))
    problems = {}
    recipe = Recipe(checked.recipe.names, 10**6, kinds)
    found = [
        s for block in checked.blocks for s in samples(*block.to_pylist(), Store(run), recipe, checked.known, problems)
    ]
    return {sample.image_id: sample for sample in found}, problems


def test_every_image_comes_once_with_its_maps_the_likeliest_first(run):
    found, problems = all_samples(run)
    assert {name: [row["target"] for row in sample.maps] for name, sample in found.items()} == TARGETS
    assert "no such file" in problems.pop(GONE)
    assert problems == {DAMAGED: "its maps are damaged"}
    for name, sample in found.items():
        assert [row["predicted_name"] for row in sample.maps] == [NAMES[2]] * len(sample.maps)
        assert sample.kind == ("png" if name.endswith("png") else "jpg")


def test_images_are_as_they_were_explained_and_plain_ones_stay_as_they_are(run):
    found, _ = all_samples(run)
    for name, sample in found.items():
        image = Image.open(io.BytesIO(sample.content))
        assert (image.mode, image.size, image.getexif().get(274)) == ("RGB", (WIDTH, HEIGHT), None)
        expected = pixels(name).astype(int)
        if name == "deep.png":
            expected = np.repeat(expected[..., :1], 3, 2)
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= (0 if sample.kind == "png" else 12)
    [plain] = [sample for name, sample in found.items() if name == "a/plain.jpg"]
    assert plain.content == (Path(run).parent / "images" / "a" / "plain.jpg").read_bytes()
    jpeg, _ = all_samples(run, {"JPEG": "jpg"})
    assert {sample.kind for sample in jpeg.values()} == {"jpg"}


def test_an_image_of_another_size_is_left_out(run):
    content = (Path(run).parent / "images" / "clear.png").read_bytes()
    for size in ((WIDTH + 1, HEIGHT), (HEIGHT, WIDTH)):
        with pytest.raises(SessError, match="the image has 40 x 30 pixels now"):
            portable(content, size, Recipe({}, 10**6, KEPT))


@pytest.mark.parametrize("to", FORMATS)
def test_an_output_is_not_written_over_and_says_what_it_is_of(run, to, tmp_path):
    output = tmp_path / "out"
    problems = export(run, output, to, shard_images=2)
    assert set(problems) == {GONE, DAMAGED}
    record = json.loads((output / "export.json").read_text())
    assert record["counts"] == {"images": 5, "maps": 8, "damaged": 0, "left_out": 2}
    assert record["left_out"] == problems
    assert not list(output.rglob(".writing-*"))
    with pytest.raises(SessError, match="has a dataset already: add --overwrite"):
        prepare(ExportConfig(to="hf", run=run, output=str(output)))
    before = {
        path.relative_to(output): path.read_bytes()
        for path in output.rglob("*")
        if path.name != "export.json" and path.is_file()
    }
    export(run, tmp_path / "again", to, shard_images=2)
    assert {path: (tmp_path / "again" / path).read_bytes() for path in before} == before


def test_an_export_is_the_same_from_parts_of_files(run, tmp_path, monkeypatch):
    monkeypatch.setattr(file_parts, "FILE_IMAGES", 1)
    monkeypatch.setattr(file_parts, "PART_IMAGES", 1)
    assert [len(block["parts"][0]) for block in prepare(ExportConfig(run=run, output=f"{run}/none")).blocks] == [7]
    export(run, tmp_path / "parts", "fiftyone")
    monkeypatch.undo()
    export(run, tmp_path / "whole", "fiftyone")
    found = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("parts", "whole")
    ]
    assert found[0].keys() == found[1].keys()
    assert {str(path) for path, content in found[0].items() if content != found[1][path]} == {"export.json"}


@pytest.mark.parametrize("images", [5, 1000])
def test_images_are_counted_once_wherever_their_maps_are(images, tmp_path):
    draw = random.Random(images)
    store, ids = Store(str(tmp_path / "run")), []
    for _ in range(4):
        own = [f"{draw.randrange(images)}.jpg" for _ in range(draw.randrange(5, 15))]
        rows = [
            {"image_id": name, "target": place, "target_name": "a", "predicted": place}
            for place, name in enumerate(own)
        ]
        store.write_table("maps", pa.Table.from_pylist(rows, MAPS))
        ids += own
    facts = prepare(ExportConfig(run=store.url, output=str(tmp_path / "out"))).facts
    counts = Counter(ids)
    assert (facts.images, facts.most_targets, facts.maps) == (len(counts), max(counts.values()), len(ids))


def test_only_the_first_images_that_are_left_out_are_named(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sess_ray.pipeline.export.job.ERRORS", 1)
    named = export(run, tmp_path / "out", "webdataset")
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["counts"]["left_out"] == 2
    assert record["left_out"] == named
    assert len(named) == 1


def test_shards_are_told_in_their_order():
    rows = [{"number": number} for number in (2, 0, 1, 4, 3)]
    assert [row["number"] for row in in_order(rows)] == [0, 1, 2, 3, 4]
