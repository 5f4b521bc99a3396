"""Tables whose labels stand in a column of another name."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from sess_ray import SessError
from sess_ray.io.inputs import read_inputs
from sess_ray.pipeline.explain.config import ExplainConfig
from tests.io.parquet import CELL, LABEL, PNG, written

CELLS = pa.array([{"bytes": content, "path": None} for content in PNG], CELL)
CSV = "uri,kind,label,Species\na.png,x,1,ant\nb.png,y,2,bee\n"
LINES = '{"uri": "a.png", "label": 1}\n{"uri": "b.png", "label": 2, "Species": ["bee", "cow"]}\n'


def labels(url, column=None):
    return read_inputs(str(url), label_column=column).images["labels"].to_pylist()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("m.csv", CSV, [["ant"], ["bee"]]),
        ("m.tsv", CSV.replace(",", "\t"), [["ant"], ["bee"]]),
        ("m.jsonl", LINES, [None, ["bee", "cow"]]),
    ],
)
def test_of_a_manifest(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert labels(tmp_path / name) == [["1"], ["2"]]
    assert labels(tmp_path / name, "Species") == expected
    with pytest.raises(SessError, match=rf"{name} has no column 'species' of labels; it has: uri, .*Species"):
        labels(tmp_path / name, "species")


def test_of_parquet_with_names_of_classes(tmp_path):
    table = pa.table({"image": CELLS, "label": [7, 8, 9], "coarse": [0, 1, 1], "text": ["ant", "bee", "cow"]})
    url = written(tmp_path / "p.parquet", table, coarse={"names": ["insect", "mammal"], "_type": "ClassLabel"})
    assert labels(url) == [["7"], ["8"], ["9"]]
    assert labels(url, "text") == [["ant"], ["bee"], ["cow"]]
    assert labels(url, "coarse") == [["insect"], ["mammal"], ["mammal"]]
    assert read_inputs(url, label_column="coarse").class_names == (("insect", "mammal"),)
    with pytest.raises(SessError, match=r"p.parquet has no column 'fine' of labels; it has: image, label, coarse, tex"):
        labels(url, "fine")


def test_columns_that_are_there_are_told_where_none_is_of_labels(tmp_path):
    two = written(
        tmp_path / "two.parquet",
        pa.table({"image": CELLS, "fine": [0, 1, 2], "coarse": [0, 1, 1]}),
        fine=LABEL,
        coarse=LABEL,
    )
    assert read_inputs(two).unlabelled == ("image", "fine", "coarse")
    (tmp_path / "m.csv").write_text("uri,species\na.png,ant\n")
    assert read_inputs(f"{tmp_path}/m.csv").unlabelled == ("uri", "species")
    (tmp_path / "m.jsonl").write_text('{"uri": "a.png"}\n{"uri": "b.png", "species": "ant"}\n')
    assert read_inputs(f"{tmp_path}/m.jsonl").unlabelled == ("uri", "species")
    (tmp_path / "m.csv").write_text("uri,class\na.png,ant\n")
    assert read_inputs(f"{tmp_path}/m.csv").unlabelled == ()


def test_where_it_says_nothing_it_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG[0])
    with pytest.raises(SessError, match=f"^--label-column x: {tmp_path} has no table with columns$"):
        labels(tmp_path, "x")
    for settings, message in (
        ({"targets": "label"}, "--label-column x is of the tables of an --input: give one"),
        ({"input": "m.csv"}, "--label-column x is for --targets label: add that"),
    ):
        with pytest.raises(SessError, match=re.escape(message)):
            ExplainConfig(label_column="x", **settings)
