"""What the tools themselves make of an export: `datasets`, and `webdataset` and FiftyOne where they are installed."""

from __future__ import annotations

import importlib
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sess_ray.cli import main
from sess_ray.pipeline.export.fiftyone import heatmap, metadata
from sess_ray.pipeline.export.huggingface import SCHEMA
from tests.pipeline.export.mongo import pretend
from tests.pipeline.export.runs import HEIGHT, NAMES, TARGETS, WIDTH, export, levels, pixels, store_run

PAIRS = [(name, target) for name, targets in sorted(TARGETS.items()) for target in targets]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("tools")
    run = store_run(found)
    for to in ("hf", "fiftyone", "webdataset"):
        export(run, found / to, to, shard_images=1)
    return found


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Hugging Face's `datasets`, with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def check(image, saliency, name, target):
    assert np.abs(np.asarray(image.convert("RGB")).astype(int)[..., 0] - pixels(name)[..., 0]).max() <= 16
    np.testing.assert_array_equal(np.asarray(saliency.convert("L")), levels(name, target))  # webdataset makes all RGB


@pytest.mark.slow
def test_datasets_reads_the_folder_with_its_features(root, hub):
    found = hub.load_dataset(str(root / "hf"), split="train")
    assert found.features == hub.Features.from_arrow_schema(SCHEMA)
    assert found.features["image"] == found.features["saliency"] == hub.Image()
    assert sorted(zip(found["image_id"], found["target"], strict=True)) == sorted(PAIRS)
    for row in found:
        check(row["image"], row["saliency"], row["image_id"], row["target"])
        assert row["target_name"] == NAMES[row["target"]]
        assert (row["predicted_name"], row["height"], row["width"]) == ("cat", HEIGHT, WIDTH)
        assert row["target_classes"] == ([2, 7] if row["target"] < 0 else [row["target"]])
    assert sorted(path.name for path in (root / "hf" / "data").iterdir()) == [
        f"train-{number:05}-of-00003.parquet" for number in range(3)
    ]
    card = (root / "hf" / "README.md").read_text()
    assert "8 saliency maps of 5 images: `gradcam`" in card
    assert "| num_scales | 12    |" in card


@pytest.mark.slow
def test_datasets_reads_the_tars(root, hub):
    files = str(root / "webdataset" / "shards" / "*.tar")
    found = hub.load_dataset("webdataset", data_files=files, split="train")
    assert {"jpg", "saliency.png", "json"} < set(found.column_names)
    assert sorted((row["json"]["image_id"], row["json"]["target"]) for row in found) == sorted(PAIRS)
    for row in found:
        check(row["jpg"], row["saliency.png"], row["json"]["image_id"], row["json"]["target"])


def test_webdataset_reads_the_tars(root):
    webdataset = pytest.importorskip("webdataset", reason="needs webdataset: uv sync --extra dev")
    files = sorted(map(str, (root / "webdataset" / "shards").iterdir()))
    found = list(webdataset.WebDataset(files, shardshuffle=False).decode("pil").to_tuple("jpg", "saliency.png", "json"))
    assert sorted((facts["image_id"], facts["target"]) for _, _, facts in found) == sorted(PAIRS)
    for image, saliency, facts in found:
        check(image, saliency, facts["image_id"], facts["target"])


def test_fiftyones_documents_agree_with_their_fields_and_files(root):
    folder = root / "fiftyone"
    documents = json.loads((folder / "samples.json").read_text())["samples"]
    told = json.loads((folder / "metadata.json").read_text())
    assert told == json.loads(json.dumps(metadata(3)))
    stored = {field["db_field"] for field in told["sample_fields"]}
    assert {name for document in documents for name in document} <= stored
    assert len({document["_id"]["$oid"] for document in documents}) == len(documents) == len(TARGETS)
    for document in documents:
        assert (folder / document["filepath"]).is_file()
        assert document["metadata"]["size_bytes"] == (folder / document["filepath"]).stat().st_size
        for rank in range(len(TARGETS[document["image_id"]])):
            assert (folder / document[heatmap(rank)]["map_path"]).is_file()


@pytest.mark.slow
def test_fiftyones_own_importer_reads_the_dataset(root, monkeypatch):
    fiftyone = with_database(monkeypatch)
    dataset = fiftyone.Dataset.from_dir(
        dataset_dir=str(root / "fiftyone"), dataset_type=fiftyone.types.FiftyOneDataset, progress=False
    )
    assert (len(dataset), dataset.media_type) == (len(TARGETS), "image")
    schema = dataset.get_field_schema()
    assert schema["saliency_3"].document_type is fiftyone.Heatmap
    for sample in dataset:
        assert Path(sample.filepath).is_file()
        targets = TARGETS[sample.image_id]
        assert [label.label for label in sample.targets.classifications] == [NAMES[target] for target in targets]
        assert sample.predicted.label == "cat"
        for rank, target in enumerate(targets):
            found = sample[heatmap(rank)]
            assert (found.range, found.label, found.confidence) == ([0, 255], NAMES[target], 0.5**rank)
            np.testing.assert_array_equal(found.get_map(), levels(sample.image_id, target))
        assert sample.get_field("saliency_3") is None or len(targets) == 3
        assert (sample.metadata.width, sample.metadata.height) == (WIDTH, HEIGHT)
    assert dataset.distinct("image_id") == sorted(TARGETS)


def with_database(monkeypatch):
    """Return FiftyOne, with mongomock in the place of a server where that is installed; skip without FiftyOne."""
    if find_spec("fiftyone") is None:
        pytest.skip(
            "needs FiftyOne, and without a MongoDB of its own mongomock: uv run --with fiftyone,mongomock pytest"
        )
    if find_spec("mongomock") is not None:
        pretend(monkeypatch)
    return importlib.import_module("fiftyone")


@pytest.mark.usefixtures("ray_session")
def test_the_command_exports_and_says_how_to_open_it(root, tmp_path, capsys):
    given = ["--run", str(root / "run"), "--to", "webdataset", "--output", str(tmp_path / "out"), "--shard-images", "3"]
    assert main.run("export", given) == 0
    said = capsys.readouterr().out
    assert "8 maps of 5 images" in said
    assert "left out: 2 images; export.json says why" in said
    assert "'damaged.jpg': its maps are damaged" in said
    assert f'open:    webdataset.WebDataset("{tmp_path}/out/shards/' in said
    assert json.loads((tmp_path / "out" / "export.json").read_text())["counts"]["maps"] == 8
    assert main.run("export", given) == 2
    assert "has a dataset already" in capsys.readouterr().err
