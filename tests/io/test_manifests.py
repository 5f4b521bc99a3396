"""Tables that list images, as people and programs write them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray import SessError
from sess_ray.io.inputs import find_images, list_images, read_inputs
from sess_ray.pipeline.explain.config import ExplainConfig


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest and list it: ids, labels and targets, or errors."""

    def listed(name, content):
        path = tmp_path / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        elif isinstance(content, list):
            path.write_text("\n".join(json.dumps(row) for row in content))
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        found = find_images(str(path))
        return [(item.image_id, item.error or item.labels, item.targets) for item in found]

    return listed


PLAIN = [("a.jpg", ["cat"], None), ("b.jpg", ["dog"], None)]


@pytest.mark.parametrize(
    "text",
    [
        "uri,label\na.jpg,cat\nb.jpg,dog\n",
        "uri, label\na.jpg, cat\nb.jpg, dog\n",
        " URI ,Label\r\na.jpg,cat\r\nb.jpg,dog\r\n",
        "\ufeffuri,label\na.jpg,cat\nb.jpg,dog\n",
        "uri;label\na.jpg;cat\nb.jpg;dog\n",
        "uri\tlabel\na.jpg\tcat\nb.jpg\tdog\n",
        "label|path\ncat|a.jpg\ndog|b.jpg\n",
        'sep=;\nuri;label\na.jpg;cat\n"b.jpg";"dog"\n',
        '"uri", "label"\n"a.jpg", "cat"\n"b.jpg", "dog"\n',
        "\n\nuri,label\n\na.jpg,cat\n,\nb.jpg,dog\n\n",
        ",uri,label\n0,a.jpg,cat\n1,b.jpg,dog\n",  # with the index of pandas
        "uri,label,\na.jpg,cat,\nb.jpg,dog,\n",
        "Uri,Class,size\na.jpg,cat,3\nb.jpg,dog,4\n",
        "uri,label\ra.jpg,cat\rb.jpg,dog\r",
        "\ufeffsep=,\nuri,label\na.jpg,cat\nb.jpg,dog",
    ],
)
def test_csv_as_people_write_it(manifest, text):
    assert manifest("m.csv", text) == PLAIN
    assert manifest("m.CSV", text.removeprefix("\ufeff").encode("utf-16")) == PLAIN
    assert manifest("m.tsv", text) == PLAIN


def test_a_row_of_csv_that_is_wrong_costs_itself(manifest):
    rows = manifest("m.csv", "uri,label\na.jpg,cat\nb,c.jpg,dog\nd.jpg\n,cat\ne.jpg,nan\n")
    assert rows == [
        PLAIN[0],
        ("m.csv#1", "row 2 of m.csv: it has 3 cells, the header 2: quote what holds a ','", None),
        ("d.jpg", None, None),
        ("m.csv#3", "row 4 of m.csv names no image", None),
        ("e.jpg", ["nan"], None),  # which a class of the model may be called
    ]
    rows = manifest("m.csv", 'uri,label\na.jpg,cat\n"b.jpg,dog\nc.jpg,dog\n')
    assert rows == [PLAIN[0], ("m.csv#1", "row 2 of m.csv: uri goes over several lines: a quote is left open", None)]
    rows = manifest("m.csv", b"uri,label\na.jpg,cat\n\xff.jpg,dog\nb.jpg,dog\n")
    assert rows == [PLAIN[0], ("\\xff.jpg", ["dog"], None), PLAIN[1]]


def test_json_lines_need_not_have_the_same_keys(manifest):
    assert manifest("m.jsonl", [{"uri": "a.jpg"}, {"uri": "b.jpg", "label": "dog"}]) == [
        ("a.jpg", None, None),
        PLAIN[1],
    ]
    assert manifest("m.jsonl", [{"label": "cat", "path": "a.jpg"}, {"Label": "dog", "file_name": "b.jpg"}]) == PLAIN
    assert manifest("m.jsonl", [{"size": 3}, {"uri": "b.jpg", "label": "dog"}, {"uri": None}]) == [
        ("m.jsonl#0", "row 1 of m.jsonl names no image", None),
        PLAIN[1],
        ("m.jsonl#2", "row 3 of m.jsonl names no image", None),
    ]
    rows = manifest(
        "m.jsonl", [{"uri": {"bytes": "x"}}, {"uri": ["a.jpg"], "id": "7"}, {"uri": "b.jpg", "class": "dog"}]
    )
    assert rows == [
        ("m.jsonl#0", "row 1 of m.jsonl: uri is no path", None),
        ("7", "row 2 of m.jsonl: uri is no path", None),
        PLAIN[1],
    ]


NAN = float("nan")


@pytest.mark.parametrize("name", ["m.jsonl", "m.parquet"])
def test_numbers_as_labels_and_gaps_between_them(manifest, name):
    values = [281, 281.0, NAN, None, 3]
    rows = [{"uri": f"{i}.jpg", "label": value, "id": float(i)} for i, value in enumerate(values)]
    if name.endswith("parquet"):
        rows = pa.table({**pa.Table.from_pylist(rows).to_pydict(), "label": pa.array(values, pa.float64())})
    found = [(image_id, labels) for image_id, labels, _ in manifest(name, rows)]
    assert found == [("0", ["281"]), ("1", ["281"]), ("2", None), ("3", None), ("4", ["3"])]


def test_targets_may_be_numbers_with_gaps_too(manifest):
    rows = [{"uri": "a", "targets": [1.0, NAN, 2]}, {"uri": "b", "targets": 7.0}, {"uri": "c", "targets": "7;cat"}]
    assert [targets for *_, targets in manifest("m.jsonl", rows)] == [["1", "2"], ["7"], ["7", "cat"]]
    assert [targets for *_, targets in manifest("m.csv", "uri,targets\na,1.0;2\nb,\n")] == [["1.0", "2"], None]


def test_rows_of_one_image_are_its_targets_and_its_labels(manifest):
    text = "uri,label,targets\na.jpg,cat,1\nb.jpg,dog,\na.jpg,dog,1\na.jpg,,2\na.jpg,cat,\n"
    assert manifest("m.csv", text) == [("a.jpg", ["cat", "dog"], ["1", "2"]), PLAIN[1]]
    assert manifest("m.jsonl", [{"uri": "a.jpg", "label": ["cat", "dog", None]}]) == [("a.jpg", ["cat", "dog"], None)]


OTHERS = ("m.json", "m.txt", "m.xlsx", "m.csv.gz", "m.pq")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "name,size\nx,3\n", "needs a column 'uri'.*it has: name, size$"),
        ("m.csv", "a.jpg,cat\nb.jpg,dog\n", "needs a column 'uri'.*it has: a.jpg, cat$"),
        ("m.csv", "uri,Label,label\na,1,2\n", "m.csv has two columns 'label': rename one"),
        ("m.csv", "uri,label\n", "no images in .*m.csv: it has no rows"),
        ("m.csv", "", "needs a column 'uri'.*it has: none"),
        ("m.jsonl", "", "no images in .*m.jsonl: it has no rows"),
        ("m.jsonl", '[{"uri": "a.jpg"}]', "line 1 of .*m.jsonl is no JSON object: write one a line"),
        ("m.jsonl", '{"uri": "a.jpg"}\n{"uri": \n', "line 2 of .*m.jsonl is no JSON: "),
        ("m.jsonl", '{\n"uri": "a.jpg"\n}\n', "line 1 of .*m.jsonl is no JSON: "),
        ("m.jsonl", '{"name": "a"}\n{"size": 3}\n', "needs a column 'uri'.*it has: name, size$"),
        ("m.jsonl", '{"uri": "a", "URI": "b"}\n', "has two columns 'uri'"),
        ("m.jsonl", "[" * 100_000, "line 1 of .*m.jsonl is no JSON: "),
        ("m.csv", 'uri,label\na.jpg,cat\n"' + "b" * 200_000, "line 3 of .*m.csv is no row .*: is a quote left open"),
        ("m.parquet", "no Parquet", "cannot read .*m.parquet"),
        *((name, "x", f"{name} is no image, and no manifest by its name: those end in .csv") for name in OTHERS),
    ],
)
def test_manifests_that_are_refused(manifest, name, content, message):
    with pytest.raises(SessError, match=message) as refused:
        manifest(name, content)
    assert len(str(refused.value).splitlines()) == 1


def test_places_are_relative_to_the_manifest(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "m.csv").write_text("uri\na.jpg\n../b.jpg\n/c.jpg\ns3://d/e.jpg\n")
    monkeypatch.chdir(tmp_path)
    for url in ("lists/m.csv", f"{tmp_path}/lists/m.csv", "./lists/m.csv"):
        places = list_images(url)["uri"].to_pylist()
        assert places == [f"{tmp_path}/lists/a.jpg", f"{tmp_path}/lists/../b.jpg", "/c.jpg", "s3://d/e.jpg"]


def test_a_column_may_be_named(tmp_path):
    (tmp_path / "m.csv").write_text("photo,uri\na.jpg,b.jpg\n")
    [row] = read_inputs(f"{tmp_path}/m.csv", image_column="photo").images.to_pylist()
    assert row["image_id"] == "a.jpg"
    with pytest.raises(SessError, match=r"needs a column 'nope'; it has: photo, uri$"):
        read_inputs(f"{tmp_path}/m.csv", image_column="nope")
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(SessError, match=r"--image-column photo: .* has no table with columns"):
        read_inputs(f"{tmp_path}/*.jpg", image_column="photo")
    with pytest.raises(SessError, match="--image-column photo is of the tables of an --input: give one"):
        ExplainConfig(image_column="photo")
