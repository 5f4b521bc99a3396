"""Outputs in which something is damaged are refused in one line."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray import SessError
from sess_ray.io.groups import count_maps, group_of, read_groups, read_images, stream_tables
from sess_ray.io.ledger import read_ledger
from sess_ray.io.listing import WRITTEN
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.cluster.output import refuse_inside_run, refuse_used
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.prepare import prepare
from sess_ray.pipeline.explain.resume import refuse_other_settings, settings

STARTED = {"settings": settings(ExplainConfig()), "made_with": {}}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", json.dumps(STARTED)[:200], "[]", "{}", "3", "null", "[" * 100_000, b"\xff\xfe\x00"),
        *({"settings": [1], "made_with": {}}, {"made_with": {}}, {"settings": {}, "made_with": None}),
    ],
    ids=repr,
)
def test_a_damaged_started_json_is_refused(content, tmp_path):
    content = json.dumps(content) if isinstance(content, dict) else content
    (tmp_path / "started.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SessError, match=r"holds a damaged started.json: add --overwrite to replace the run, or choose"):
        refuse_other_settings(Store(str(tmp_path)), ExplainConfig())


def test_a_folder_in_its_place_too_and_a_whole_one_is_read(tmp_path):
    (tmp_path / "started.json").write_text(json.dumps(STARTED))
    assert refuse_other_settings(Store(str(tmp_path)), ExplainConfig()) == json.loads(json.dumps(STARTED))
    (tmp_path / "started.json").unlink()
    (tmp_path / "started.json").mkdir()
    with pytest.raises(SessError, match=r"holds a damaged started.json"):
        refuse_other_settings(Store(str(tmp_path)), ExplainConfig())


def test_settings_are_told_as_a_file_of_settings_has_them(tmp_path):
    (tmp_path / "started.json").write_text(json.dumps(STARTED))
    other = ExplainConfig(smooth=False, layer="features", method_option=("a=1",))
    with pytest.raises(SessError) as refused:
        refuse_other_settings(Store(str(tmp_path)), other)
    for told in (
        "smooth was true and is false",
        "layer was not given and is 'features'",
        "method_option was not given",
    ):
        assert told in str(refused.value)
    assert "None" not in str(refused.value)


@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_other_records_that_are_damaged_are_named(name, tmp_path):
    (tmp_path / name).write_text('{"settings": ')
    with pytest.raises(SessError, match=rf"{name} is damaged: remove it, and run again"):
        Store(str(tmp_path)).read_json(name)


@pytest.mark.parametrize("folder", ["maps", "errors"])
def test_tables_of_others_and_halves_are_named(folder, tmp_path):
    store = Store(str(tmp_path))
    store.write_table("maps", pa.Table.from_pylist([{"image_id": "a", "target": 1}], MAPS))
    place = tmp_path / folder / "x.parquet"
    place.parent.mkdir(exist_ok=True)
    for table in (pa.table({"a": [1]}), pa.table({"image_id": [1], "target": [1]})):
        pq.write_table(table, place)
        with pytest.raises(SessError, match=rf"{folder}/x.parquet holds no rows of a run: remove it"):
            read_ledger(store)
    whole = place.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) - 40] + b"\xff" * 30 + whole[-10:]):
        place.write_bytes(content)
        with pytest.raises(SessError, match=rf"{folder}/x.parquet is damaged \(.*\): remove it, and run again"):
            read_ledger(store)
    place.unlink()
    assert read_ledger(store).images == 1


@pytest.mark.parametrize("place", ["a.jpg", "a.jpg/out"])
def test_an_output_that_is_a_file_is_refused(place, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(
        SessError, match=rf"output {tmp_path}/{place} is a file, or lies below one: choose another --ou"
    ):
        prepare(ExplainConfig(output=f"{tmp_path}/{place}"))


def test_a_url_that_lacks_a_slash_is_no_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("s3:/bucket/out", "gs:/bucket"):
        with pytest.raises(SessError, match=rf"^{url} lacks a slash: {url[:2]}:// ..."):
            Store(url)
    assert Store("a:/b").url == "a:/b"


@pytest.mark.parametrize("folder", WRITTEN)
def test_an_output_among_the_files_of_a_run_is_refused(folder, tmp_path):
    for place in (f"{tmp_path}/{folder}", f"file://{tmp_path}/{folder}/more/out/"):
        refuse_inside_run(Store(place))  # any folder may be called so
    (tmp_path / "started.json").write_text(json.dumps(STARTED))
    for place in (f"{tmp_path}/{folder}", f"file://{tmp_path}/{folder}/more/out/"):
        with pytest.raises(
            SessError, match=rf"lies among the files of a run, in its {folder}/: choose another --output"
        ):
            refuse_inside_run(Store(place))
        with pytest.raises(SessError, match=r"lies among the files of a run"):
            refuse_used(Store(place), ["export.json"], "a dataset", overwrite=True)
        with pytest.raises(SessError, match=r"lies among the files of a run"):
            prepare(ExplainConfig(output=place))
    refuse_inside_run(Store(str(tmp_path)))
    refuse_inside_run(Store(f"{tmp_path}/dataset"))


def test_pages_that_are_damaged_are_named_when_they_are_read(tmp_path):
    store = Store(str(tmp_path))
    row = {"image_id": "a", "target": 1, "saliency": {"bytes": bytes(range(256)) * 20, "path": None}}
    name = store.write_table("maps", pa.Table.from_pylist([row], MAPS))
    chunks = pq.ParquetFile(tmp_path / name).metadata.row_group(0)
    [chunk] = [
        chunks.column(i) for i in range(chunks.num_columns) if chunks.column(i).path_in_schema == "saliency.bytes"
    ]
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray((tmp_path / name).read_bytes())
    content[begin : begin + 400] = b"\xff" * 400
    (tmp_path / name).write_bytes(content)
    assert read_ledger(store).images == 1  # of which no more is read
    with pytest.raises(SessError, match=rf"{name} is damaged \(.*\): remove it, and run again"):
        store.read_table(name)


def test_tables_of_others_are_named_when_files_are_read_one_after_another(tmp_path):
    (tmp_path / "maps").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "maps" / "x.parquet")
    with pytest.raises(SessError, match=r"maps/x.parquet holds no rows of a run: remove it"):
        list(stream_tables(Store(str(tmp_path)), ["maps/x.parquet"], ["image_id", "target"]))
    for read in (read_groups, read_images):
        arguments = [["image_id"]] if read is read_groups else [0, 1]
        with pytest.raises(SessError, match=r"maps/x.parquet holds no rows of a run: remove it"):
            list(read(Store(str(tmp_path)), "maps/x.parquet", *arguments))
    (tmp_path / "maps" / "x.parquet").write_bytes(b"PAR1")
    for found in (
        lambda store, name: count_maps(store, [name]),
        lambda store, name: list(read_groups(store, name)),
        lambda store, name: list(read_images(store, name, 0, 1)),
        lambda store, name: group_of(store, name, 0),
    ):
        with pytest.raises(SessError, match=r"maps/x.parquet is damaged \(.*\): remove it, and run again"):
            found(Store(str(tmp_path)), "maps/x.parquet")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "maps").write_text("x")
    with pytest.raises(SessError, match=r"maps is a file, where the folder of a run should be: remove it"):
        read_ledger(Store(str(tmp_path)))
