"""Inventories in the layouts of their clouds: read as a list of the bucket would be."""

from __future__ import annotations

import datetime
import gzip
import json
from urllib.parse import quote_plus

import fsspec
import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from sess_ray import SessError
from sess_ray.io import inputs
from sess_ray.io.inputs import find_images, read_inputs

# Name, whether it is the latest version, whether it is a delete marker.
OBJECTS = [
    ("photos/b/2.jpg", True, False),
    ("photos/a b/caf\u00e9 +1%.jpg", True, False),
    ("photos/b/2.jpg", False, False),
    ("photos/gone.jpg", True, True),
    ("photos/gone.jpg", False, False),
    ("photos/", True, False),
    ("notes,\n1.txt", True, False),
    ("0012.png", True, False),
    (".hidden/x.png", True, False),
    ("photos/a b/1.JPG", True, False),
]
FOUND = ["photos/b/2.jpg", "photos/a b/caf\u00e9 +1%.jpg", "0012.png", "photos/a b/1.JPG"]
SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
ORC = "struct<bucket:string,key:string,version_id:string,is_latest:boolean,is_delete_marker:boolean,size:bigint>"
MESSAGE = (
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8);"
    " optional binary version_id (UTF8); optional boolean is_latest; optional boolean is_delete_marker;"
    " optional int64 size; }"
)
PREFIX = "inv/source-bucket/every-day"


def write(url, content):
    with fsspec.open(url, "wb", auto_mkdir=True) as file:
        file.write(content)


def packed(objects, *, versions):
    """S3's CSV: quoted cells without a header, names encoded as in URLs, gzip."""
    lines = []
    for name, latest, marker in objects:
        cells = ["source-bucket", quote_plus(name, safe="/")]
        cells += ["v1", str(latest).lower(), str(marker).lower()] if versions else []
        cells += ["" if marker else "7", "2026-01-01T00:00:00.000Z", '"e"' if marker else "0e1", "STANDARD"]
        lines.append(",".join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\n")
    return gzip.compress("".join(lines).encode())


def rows(objects, *, versions):
    columns = {"bucket": ["source-bucket"] * len(objects), "key": [name for name, _, _ in objects]}
    if versions:
        columns |= {"version_id": ["v1"] * len(objects)}
        columns |= {"is_latest": [one for _, one, _ in objects], "is_delete_marker": [one for _, _, one in objects]}
    return pa.table(columns | {"size": list(range(len(objects)))})


def file_of(kind, objects, *, versions):
    if kind == "CSV":
        return packed(objects, versions=versions)
    sink = pa.BufferOutputStream()
    (pq.write_table if kind == "Parquet" else pa.orc.write_table)(rows(objects, versions=versions), sink)
    return sink.getvalue().to_pybytes()


def s3_inventory(root, kind, objects=OBJECTS, *, versions=True, files=2, **other):
    """Write an inventory as S3 does, and return where its manifest is; empty files come, too."""
    ending = {"CSV": "csv.gz", "Parquet": "parquet", "ORC": "orc"}[kind]
    schema = SCHEMA if versions else SCHEMA.replace("VersionId, IsLatest, IsDeleteMarker, ", "")
    entries = []
    for number in range(files):
        content = file_of(kind, objects[number::files], versions=versions)
        key = f"{PREFIX}/data/939c6d46-85a9-4ba8-87bd-9db705a579c{number}.{ending}"
        write(f"{root}/{key}", content)
        entries.append({"key": key, "size": len(content), "MD5checksum": "f11166069f1990abeb9c97ace9cdfabc"})
    manifest = {
        "sourceBucket": "source-bucket",
        "destinationBucket": "arn:aws:s3:::inventories",
        "version": "2016-11-30",
        "creationTimestamp": "1767225600000",
        "fileFormat": kind,
        "fileSchema": {"CSV": schema, "Parquet": MESSAGE, "ORC": ORC}[kind],
        "files": entries,
    }
    url = f"{root}/{PREFIX}/2026-01-01T01-00Z/manifest.json"
    write(url, json.dumps(manifest | other, indent=2).encode())
    return url


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    """A copy of the bucket that holds the inventories."""
    return str(tmp_path) if request.param == "local" else f"memory://inventories/{tmp_path.name}"


@pytest.mark.parametrize("kind", ["CSV", "Parquet", "ORC"])
def test_an_inventory_of_s3_is_its_bucket(root, kind, caplog):
    """Names are decoded in CSV alone; what is no object of now is counted, and what is no image."""
    with caplog.at_level("WARNING", "sess_ray"):
        items = find_images(s3_inventory(root, kind, files=1))
    assert [(item.image_id, item.uri) for item in items] == [(name, f"s3://source-bucket/{name}") for name in FOUND]
    assert [item.folder for item in items] == ["photos/b", "photos/a b", "./source-bucket", "photos/a b"]
    others, gone = [record.getMessage() for record in caplog.records]
    assert others.startswith("left out, no images by their names: ")
    assert "1 .txt" in others
    assert gone == "left out of the inventory: 2 old versions and 1 delete marker"


@pytest.mark.parametrize("kind", ["CSV", "Parquet", "ORC"])
def test_an_inventory_without_versions_in_several_files(root, kind):
    objects = [(f"{number:03}.jpg", True, False) for number in range(60)]
    found = find_images(s3_inventory(root, kind, objects, versions=False, files=3))
    assert [item.image_id for item in found] == [name for part in range(3) for name, _, _ in objects[part::3]]


def test_a_file_without_rows_is_none_that_is_broken(root):
    url = s3_inventory(root, "CSV", OBJECTS[:1])
    assert [item.image_id for item in find_images(url)] == FOUND[:1]


def google_inventory(root, kind, *, header=True, delimiter=",", bucket="photos"):
    """Write a report as Storage Insights does: the manifest lies beside its shards."""
    deleted = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    objects = [(name, None if latest and not marker else deleted) for name, latest, marker in OBJECTS]
    columns = {
        "project": ["p"] * len(objects),
        "bucket": [bucket] * len(objects),
        "name": [name for name, _ in objects],
        "size": list(range(len(objects))),
        "timeDeleted": pa.array([when for _, when in objects], pa.timestamp("us", "UTC")),
    }
    stem, names = "fc95c52f-157a-494f-af4a-d4a53a69ba66_2026-01-01T00:00", []
    for number in range(2):
        table = pa.table({name: column[number::2] for name, column in columns.items()})
        names.append(f"{stem}_{number}.{kind}")
        if kind == "csv":
            cells = [list(table.column_names)] * header + [
                ["" if cell is None else str(cell) for cell in row.values()] for row in table.to_pylist()
            ]
            quoted = [
                ['"' + cell + '"' if set(cell) & set(f"{delimiter}\n") else cell for cell in row] for row in cells
            ]
            write(f"{root}/{names[-1]}", "".join(delimiter.join(row) + "\n" for row in quoted).encode())
        else:
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            write(f"{root}/{names[-1]}", sink.getvalue().to_pybytes())
    options = {"headerRequired": header, "delimiter": delimiter, "recordSeparator": "\n"}
    config = {
        "name": "projects/p/locations/us/reportConfigs/fc95c52f-157a-494f-af4a-d4a53a69ba66",
        "objectMetadataReportOptions": {"metadataFields": list(columns)},
    }
    manifest = {
        "report_config": config | ({"csvOptions": options} if kind == "csv" else {"parquetOptions": {}}),
        "records_processed": len(objects),
        "snapshot_time": "2026-01-01T00:00:00Z",
        "shard_count": 2,
        "report_shards_file_names": names,
    }
    write(f"{root}/{stem}_manifest.json", json.dumps(manifest).encode())
    return f"{root}/{stem}_manifest.json"


@pytest.mark.parametrize(
    ("kind", "how"), [("csv", {}), ("csv", {"header": False}), ("csv", {"delimiter": "|"}), ("parquet", {})]
)
def test_a_report_of_google_is_its_bucket(root, kind, how, caplog, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})  # else it looks for a machine's role
    with caplog.at_level("WARNING", "sess_ray"):
        items = find_images(google_inventory(root, kind, **how))
    rows = [name for part in range(2) for name, latest, _ in OBJECTS[part::2] if latest]
    assert [item.image_id for item in items] == [name for name in rows if name in FOUND]
    assert {item.uri for item in items} == {f"gs://photos/{name}" for name in FOUND}
    assert "left out of the inventory: 3 deleted or old versions" in caplog.messages


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root, key: write(f"{root}/{key}", b""), "the inventory's file .*csv.gz"),
        (lambda root, key: write(f"{root}/{key}", gzip.compress(b'"a","b"\n')), "the inventory's file .*csv.gz"),
        (
            lambda root, key: write(f"{root}/{key}", packed(OBJECTS * 50, versions=True)[:-40]),
            "the inventory's file .*csv.gz cannot be read",
        ),
        (
            lambda root, key: write(
                f"{root}/{key}", gzip.compress(b'"other","b.jpg","v","true","false","","","",""\n')
            ),
            "is of bucket other, its manifest of source-bucket",
        ),
        (
            lambda root, key: fsspec.core.url_to_fs(root)[0].rm(f"{root}/{key}"),
            "the inventory's file .* cannot be read",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_no_shorter_list(root, spoil, message):
    """What is left would pass for the whole bucket."""
    url = s3_inventory(root, "CSV")
    spoil(root, f"{PREFIX}/data/939c6d46-85a9-4ba8-87bd-9db705a579c1.csv.gz")
    with pytest.raises(SessError, match=message) as refused:
        read_inputs(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is no image, and no manifest by its name"),
        ("[1, 2", "is no image, and no manifest by its name"),
        ('{"sourceBucket": "b", "files": [{}]}', "is no whole manifest of an inventory"),
        ('{"sourceBucket": "b", "files": [], "fileFormat": "CSV", "fileSchema": "Bucket, Key"}', "no images in"),
        ('{"report_shards_file_names": 5}', "is no whole manifest of an inventory"),
    ],
)
def test_other_json_is_no_inventory(tmp_path, content, message):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(SessError, match=message):
        read_inputs(f"{tmp_path}/manifest.json")


@pytest.mark.parametrize("kind", ["CSV", "tsv"])
def test_a_long_list_says_how_nobody_has_to_hold_it(root, monkeypatch, caplog, kind):
    monkeypatch.setattr(inputs, "MANY", 3)
    monkeypatch.setattr(inputs, "CHUNK", 2)
    url = s3_inventory(root, kind) if kind == "CSV" else f"{root}/a b.tsv"
    write(f"{root}/a b.tsv", b"uri\n1.jpg\n2.jpg\n3.jpg\n4.jpg\n5.jpg\n6.jpg\n")
    with caplog.at_level("WARNING", "sess_ray"):
        assert read_inputs(url).images.num_rows > 3
        assert read_inputs(url, limit=3).images.num_rows == 3
    told = [message for message in caplog.messages if "sess-ray list" in message]
    assert told[0].startswith("more than 3 images, whose names are held in memory: `sess-ray list --input ")
    assert len(told) == (1 if kind == "CSV" else 2)
