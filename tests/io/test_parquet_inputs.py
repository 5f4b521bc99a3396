"""Parquet with images, as Hugging Face's datasets and other programs write it."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from sess_ray import SessError
from sess_ray.io.inputs import find_images, read_inputs
from sess_ray.io.reading import read_items
from tests.io.parquet import CELL, LABEL, PNG, written


def contents(url, column=None):
    found = read_inputs(str(url), image_column=column).images.to_pylist()
    return [
        (row["image_id"], content)
        for row, content in zip(found, read_items([row["uri"] for row in found]), strict=True)
    ]


def places(tmp_path):
    """Three files: relative to the Parquet file, as a path, and as a URL."""
    (tmp_path / "images").mkdir()
    for name, content in zip(("images/1.png", "2.png", "3.png"), PNG, strict=True):
        (tmp_path / name).write_bytes(content)
    return ["images/1.png", f"{tmp_path}/2.png", f"file://{tmp_path}/3.png"]


def test_paths_where_bytes_are_null_are_read(tmp_path):
    paths = places(tmp_path)
    cells = pa.array([{"bytes": None, "path": path} for path in paths], CELL)
    url = written(tmp_path / "p.parquet", pa.table({"image": cells, "label": [1, 2, 3]}))
    assert contents(url) == list(zip(paths, PNG, strict=True))
    # Nothing but paths: the file is a manifest of them.
    assert [item.uri for item in find_images(url)] == [f"{tmp_path}/images/1.png", *paths[1:]]
    only = pa.StructArray.from_arrays([pa.array(paths)], ["path"])
    assert contents(written(tmp_path / "only.parquet", pa.table({"image": only}))) == list(zip(paths, PNG, strict=True))
    mixed = [{"bytes": PNG[2], "path": "c.png"}, *({"bytes": None, "path": path} for path in paths[:2])]
    mixed += [
        {"bytes": None, "path": "gone.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"", "path": paths[0]},
    ]
    url = written(tmp_path / "mixed.parquet", pa.table({"image": pa.array(mixed, CELL)}))
    found = contents(url)
    assert [content for _, content in found[:3]] == [PNG[2], *PNG[:2]]
    assert f"{tmp_path}/gone.png" in str(found[3][1])
    assert [str(error) for _, error in found[4:6]] == ["the row holds no image bytes, and no path"] * 2
    assert found[6] == (f"{paths[0]}#6", b"")
    # In a folder ids begin with the file's name; rows of one path are images of their own where they have bytes.
    assert contents(tmp_path)[-1][0].startswith("p.parquet/file:")


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())],
    ids=str,
)
@pytest.mark.parametrize("name", ["image", "bytes", "img", "jpg", "jpg_bytes", "png", "data", "Image", "file"])
def test_bytes_of_any_type_under_any_name(tmp_path, kind, name):
    text = pa.dictionary(pa.int8(), pa.string()) if pa.types.is_dictionary(kind) else pa.string_view()
    table = pa.table(
        {
            name: pa.array(list(PNG)).cast(kind),
            "id": pa.array(["x", "y", "z"]).cast(text),
            "label": pa.array(["cat", "dog", "cat"]).cast(text),
        }
    )
    url = written(tmp_path / "p.parquet", table)
    assert contents(url) == list(zip("xyz", PNG, strict=True))
    assert [item.labels for item in find_images(url)] == [["cat"], ["dog"], ["cat"]]
    [last] = read_items([f"{url}#2"])
    assert last == PNG[2]


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_places_of_any_type(tmp_path, kind):
    paths = places(tmp_path)
    for name in ("uri", "PATH", "image" if kind != pa.binary() else "url"):
        table = pa.table({name: pa.array(paths).cast(kind), "checksum": pa.array([b"a", b"b", b"c"])})
        assert contents(written(tmp_path / "p.parquet", table)) == list(zip(paths, PNG, strict=True))


def test_what_may_hold_images_is_named_where_there_is_a_choice(tmp_path):
    paths = places(tmp_path)
    cells = pa.array([{"bytes": content, "path": None} for content in PNG], CELL)
    table = pa.table(
        {"jpg": list(PNG), "mask_png": list(reversed(PNG)), "seg": cells, "place": paths, "size": [1, 2, 3]}
    )
    url = written(tmp_path / "p.parquet", table)
    with pytest.raises(
        SessError, match=r"x.parquet has several columns .*\(scan, mask_png, seg\): give one as --image-c"
    ):
        contents(written(tmp_path / "x.parquet", table.rename_columns(["scan", *table.column_names[1:]])))
    assert [content for _, content in contents(url)] == list(PNG)  # the only one that is called as images are
    for column in ("jpg", "seg", "place"):
        assert [content for _, content in contents(url, column)] == list(PNG)
    found = contents(url, "mask_png")
    assert found == [(f"p.parquet#{row}", content) for row, content in enumerate(reversed(PNG))]
    # What was chosen stands where the image is read: an evaluation finds it again.
    assert read_inputs(url, image_column="mask_png").images["uri"][0].as_py() == f"{url}#mask_png/0"
    for column in ("size", "nope"):
        with pytest.raises(
            SessError, match=f"has no column '{column}' of images; it has: jpg .*; --image-column may be"
        ):
            contents(url, column)


def test_bytes_of_one_length(tmp_path):
    url = written(tmp_path / "p.parquet", pa.table({"image": pa.array([PNG[0], PNG[1]], pa.binary(len(PNG[0])))}))
    assert [content for _, content in contents(url)] == list(PNG[:2])


def test_columns_that_are_there_are_named_where_none_holds_images(tmp_path):
    table = pa.table({"picture": [[1, 2]], "width": [3]})
    with pytest.raises(SessError, match=r"needs a column 'uri' .*; it has: picture \(list.*\), width \(int64\)$"):
        contents(written(tmp_path / "p.parquet", table))
    table = pa.table({"place": ["a.png"], "width": [3]})
    with pytest.raises(SessError, match=r"it has: place \(string\), width \(int64\); --image-column may be place$"):
        contents(written(tmp_path / "p.parquet", table))


def test_the_column_that_datasets_call_an_image_is_meant(tmp_path):
    cells = pa.array([{"bytes": content, "path": None} for content in PNG], CELL)
    table = pa.table({"embedding": list(PNG), "scan": cells})
    url = written(
        tmp_path / "p.parquet", table, scan={"_type": "Image"}, embedding={"_type": "Value", "dtype": "binary"}
    )
    assert [content for _, content in contents(url)] == list(PNG)
    assert read_items([f"{url}#1"]) == [PNG[1]]


@pytest.mark.parametrize(
    ("column", "feature", "values", "expected"),
    [
        ("label", LABEL, [2, 0, 1], [["cow"], ["ant"], ["bee"]]),
        ("label", LABEL, [2, -1, None], [["cow"], None, None]),
        ("label", LABEL, [2, 3, 0], [["cow"], ["label 3 of 3 classes"], ["ant"]]),
        ("labels", LABEL, [2, 0, 1], [["cow"], ["ant"], ["bee"]]),  # the only one that has names
        ("label", {"_type": "Sequence", "feature": LABEL}, [[2, 0], [], None], [["cow", "ant"], None, None]),
        ("label", [LABEL], [[2, 0], [1], [0]], [["cow", "ant"], ["bee"], ["ant"]]),
        ("label", {"_type": "Value", "dtype": "int64"}, [2, 0, 1], [["2"], ["0"], ["1"]]),
    ],
)
def test_labels_have_the_names_that_the_schema_says(tmp_path, column, feature, values, expected):
    table = pa.table({"image": list(PNG), column: values})
    found = read_inputs(written(tmp_path / "p.parquet", table, **{column: feature}))
    assert found.images["labels"].to_pylist() == expected
    named = "ant" in json.dumps(feature)
    assert found.class_names == ((("ant", "bee", "cow"),) if named else ())


@pytest.mark.parametrize("told", [b"no JSON", b"[]", b'{"info": null}', b'{"info": {"features": [1]}}'])
def test_metadata_of_another_kind_says_nothing(tmp_path, told):
    table = pa.table({"image": list(PNG), "label": [1, 0, 2]}).replace_schema_metadata({b"huggingface": told})
    found = read_inputs(written(tmp_path / "p.parquet", table))
    assert (found.images["labels"].to_pylist(), found.class_names) == ([["1"], ["0"], ["2"]], ())


def test_what_datasets_write_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cow"])})
    rows = {"img": [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(PNG)], "label": [2, 0, 1]}
    url = f"{tmp_path}/train-00000-of-00001.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(url)
    assert contents(url) == [(f"{i}.png", content) for i, content in enumerate(PNG)]
    found = read_inputs(url)
    assert found.images["labels"].to_pylist() == [["cow"], ["ant"], ["bee"]]
    assert found.class_names == (("ant", "bee", "cow"),)


def test_a_table_of_a_folder_that_cannot_be_read_costs_itself(tmp_path):
    written(tmp_path / "a.parquet", pa.table({"image": list(PNG)}))
    (tmp_path / "b.parquet").write_text("no Parquet")
    (tmp_path / "c.parquet").write_bytes(b"")
    written(tmp_path / "d.parquet", pa.table({"size": [1]}))
    found = find_images(str(tmp_path))
    assert [item.image_id for item in found] == [
        *(f"a.parquet#{row}" for row in range(3)),
        "b.parquet#0",
        "c.parquet#0",
    ]
    assert all("ArrowInvalid" in item.error for item in found[3:])
