"""Folders as classes, where a folder was listed into a manifest: they mean what they mean to a run over the folder."""

from __future__ import annotations

import pytest
from torch import nn

from sess_ray import SessError
from sess_ray.io import spans
from sess_ray.io.inputs import read_inputs
from sess_ray.models import Model
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.large import known, planned
from sess_ray.pipeline.explain.targets import resolve
from sess_ray.pipeline.listing.config import ListConfig
from sess_ray.pipeline.listing.job import prepare, run

INSECTS = ("ant", "bee", "cow")


def few(*names):
    return Model(nn.Identity(), "few", "layer", "NCHW", len(names) or 3, 8, (0.5,) * 3, (0.5,) * 3, classes=names)


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Make files; return the folder, and the manifest of a list of it."""
    monkeypatch.setattr(spans, "LARGE", 1)
    monkeypatch.setattr(spans, "LEAST_ROWS", 2)

    def make(files):
        for name in files.split():
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        run(prepare(ListConfig(input=f"{tmp_path}/in", output=f"{tmp_path}/m.parquet")))
        return f"{tmp_path}/in", f"{tmp_path}/m.parquet"

    return make


def of_items(url, model):
    tasks = resolve(read_inputs(url).images, "label", model).to_pylist()
    return {task["image_id"]: task["error"] or [tuple(one) for one in task["targets"]] for task in tasks}


def of_rows(url, model, output):
    """What the tasks of a large manifest find, row by row."""
    config = ExplainConfig(input=url, targets="label", output=str(output))
    large = planned(config, known(config, None, None), model)
    found = {}
    for span in range(large.source.spans.count):
        for task in large.source.tasks(span, *large.source.spans.bounds(span), None):
            try:
                found[task["image_id"]] = large.declared.of(task, model)
            except SessError as error:
                found[task["image_id"]] = str(error)
    return found


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ("ant/a/1.jpg ant/b/2.jpg bee/a/3.jpg cow/c/4.jpg", INSECTS),
        ("x/1.jpg y/2.jpg z/3.jpg", ()),  # in sorted order
        ("train/ant/1.jpg val/ant/1.jpg val/bee/2.jpg train/3.jpg", INSECTS),
        ("2/1.jpg 0/1.jpg 3.jpg", INSECTS),
        ("1.jpg ant/1.jpg bee/1.jpg dog/1.jpg", INSECTS),
        ("1/a.jpg 2/a.jpg 3/a.jpg", ("3", "2", "1")),
    ],
)
def test_the_classes_are_those_of_the_folder(listed, tmp_path, files, names):
    folder, manifest = listed(files)
    expected = of_items(folder, few(*names))
    assert any(isinstance(targets, list) for targets in expected.values())
    assert of_items(manifest, few(*names)) == expected
    assert of_rows(manifest, few(*names), tmp_path / "out") == expected


def test_a_column_of_the_name_in_a_manifest_of_ones_own_means_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("uri,folder\n1.jpg,ant\n2.jpg,bee\n")
    run(prepare(ListConfig(input=f"{tmp_path}/t.csv", output=f"{tmp_path}/m.parquet")))
    assert read_inputs(f"{tmp_path}/m.parquet").images["folder"].null_count == 2
