"""Large manifests cut by place: which images are in a span, and which inputs are cut at all."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sess_ray import SessError
from sess_ray.io import spans as module
from sess_ray.io.inputs import list_images
from sess_ray.io.spans import cut
from tests.io.manifest import written


def found(spans):
    return [[(row["image_id"], rows) for row, rows in spans.images(span)] for span in range(spans.count)]


def test_spans_are_so_many_rows_each(tmp_path):
    spans = written(tmp_path / "m.parquet", list("abcdefghij"))
    assert [spans.bounds(span) for span in range(spans.count)] == [(0, 4), (4, 8), (8, 10)]
    assert found(spans) == [
        [("a", [0]), ("b", [1]), ("c", [2]), ("d", [3])],
        [("e", [4]), ("f", [5]), ("g", [6]), ("h", [7])],
        [("i", [8]), ("j", [9])],
    ]


def test_an_image_of_several_rows_is_of_the_span_of_the_first_of_them(tmp_path):
    """The rows behind the border are answered for by the next image there; what travels is of one span."""
    spans = written(tmp_path / "m.parquet", list("abbcccdefg"))
    assert found(spans) == [
        [("a", [0]), ("b", [1, 2]), ("c", [3])],
        [("d", [4, 5, 6]), ("e", [7])],
        [("f", [8]), ("g", [9])],
    ]


def test_targets_of_rows_on_both_sides_of_a_border_are_one_images(tmp_path):
    names = list("abbcccdefg")
    columns = {"id": names, "uri": [f"{name}.jpg" for name in names], "targets": list(map(str, range(10)))}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    spans = module.Spans(str(tmp_path / "m.parquet"), 10, 4, "")
    targets = {row["image_id"]: row["targets"] for span in range(3) for row, _ in spans.images(span)}
    assert targets == {row["image_id"]: row["targets"] for row in list_images(spans.url).to_pylist()}
    assert targets["c"] == ["3", "4", "5"]


@pytest.mark.parametrize("group", [0, 1, 2])
def test_rows_that_cannot_be_read_are_one_error_and_cost_no_others(group, tmp_path):
    path = tmp_path / "m.parquet"
    names = list("abcdefghij")
    table = pa.table({"id": names, "uri": [f"{name}.jpg" for name in names]})
    pq.write_table(table, path, row_group_size=4, use_dictionary=False, compression="snappy")
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = (
        b"\xff" * chunk.total_compressed_size
    )
    path.write_bytes(content)
    spans = module.Spans(str(path), 10, 4, "")
    begin, end = spans.bounds(group)
    for span in range(spans.count):
        images = spans.images(span)
        if span == group:
            [(row, rows)] = images
            assert rows == list(range(begin, end))
            assert row["image_id"] == f"m.parquet#{begin}"
            assert row["error"].startswith(f"rows {begin + 1} to {end} of the manifest cannot be read: ")
        else:
            assert [row["image_id"] for row, _ in images] == names[slice(*spans.bounds(span))]
            assert not any(row["error"] for row, _ in images)


def test_an_id_of_two_images_costs_the_second(tmp_path):
    spans = written(tmp_path / "m.parquet", list("abac"), ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    rows = [row for row, _ in spans.images(0)]
    assert [row["image_id"] for row in rows] == ["a", "b", "a#2", "c"]
    assert rows[2]["error"] == "row 3 has the id of another image, 'a': give each its own"
    with pytest.raises(SessError, match="has id 'a' for two images"):
        list_images(spans.url)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=24), st.integers(1, 6), st.integers(1, 9))
def test_every_row_is_answered_for_once(tmp_path_factory, names, size, group):
    path = tmp_path_factory.mktemp("rows") / "m.parquet"
    written(path, names, group=group)
    spans = module.Spans(str(path), len(names), size, "")
    held = [(span, rows) for span in range(spans.count) for _, rows in spans.images(span)]
    assert all(spans.bounds(span)[0] <= row < spans.bounds(span)[1] for span, rows in held for row in rows)
    told = sorted(row for _, rows in held for row in rows)
    whole = {span for span in range(spans.count) if spans.images(span)}  # not: all of it is of an image before
    assert told == [row for span in sorted(whole) for row in range(*spans.bounds(span))]


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 8)
    written(tmp_path / "m.parquet", list("abcdefghij"))
    return tmp_path / "m.parquet"


def test_only_large_parquet_manifests_are_cut(large, tmp_path, monkeypatch):
    known = cut(str(large))
    monkeypatch.chdir(tmp_path)
    assert cut("m.parquet") == known  # for workers, which are elsewhere
    assert (known.spans.rows, known.spans.size) == (10, module.LEAST_ROWS)
    assert (known.columns.id, known.columns.uri, known.names) == ("id", "uri", ())
    written(tmp_path / "small.parquet", list("abc"))
    (tmp_path / "m.csv").write_text("uri\n" + "a.jpg\n" * 20)
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    for name in ("small.parquet", "m.csv", "bad.parquet", "none.parquet", "*.parquet", ""):
        assert cut(str(tmp_path / name)) is None
    pq.write_table(pa.table({"image": [b"png"] * 10}), tmp_path / "packed.parquet")
    assert cut(str(tmp_path / "packed.parquet")) is None  # ids would be paths beside the bytes: any may come again
    pq.write_table(pa.table({"image": [b"png"] * 10, "id": list("abcdefghij")}), tmp_path / "packed.parquet")
    assert cut(str(tmp_path / "packed.parquet"))


@pytest.mark.usefixtures("large")
def test_what_has_no_images_is_refused_at_once(tmp_path):
    pq.write_table(pa.table({"x": list(range(10))}), tmp_path / "x.parquet")
    with pytest.raises(SessError, match=r"x\.parquet needs a column 'uri'"):
        cut(str(tmp_path / "x.parquet"))


def test_another_manifest_of_the_name_is_told(large):
    before = cut(str(large)).spans.told()
    assert cut(str(large)).spans.told() == before
    written(large, list("abcdefghix"))
    assert cut(str(large)).spans.told() != before


@pytest.mark.usefixtures("large")
def test_targets_that_are_all_null_are_none(tmp_path):
    for values, own in (([None] * 10, None), ([None] * 9 + [["1"]], "targets")):
        columns = {"uri": list("abcdefghij"), "targets": pa.array(values, pa.list_(pa.string()))}
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        assert cut(str(tmp_path / "t.parquet")).columns.targets == own
