"""URLs that are signed: they are read as what they are, and what signs them is written nowhere."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sess_ray import SessError
from sess_ray.access import one_line, public, public_text
from sess_ray.io.inputs import find_images, list_images
from sess_ray.io.items import is_shard, shard_rows, split_uri
from sess_ray.io.reading import read_items
from sess_ray.io.shards import read_shard
from tests.io.signed import SECRET, SIGNED, picture, serving

pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def host():
    with serving() as url:
        yield url


def test_one_image(host):
    [item] = find_images(f"{host}/photos/1.png?{SIGNED}")
    assert item.image_id == "1.png"
    assert read_items([item.uri]) == [picture("red")]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_manifest_that_is_signed_and_of_signed_urls(host, name):
    items = find_images(f"{host}/{name}?{SIGNED}")
    ids = [item.image_id for item in items]
    assert ids[0] == f"{host}/photos/1.png"
    assert len(set(ids)) == 3
    assert not [one for one in ids if SECRET in one or "red" in one or "blue" in one]
    assert read_items([item.uri for item in items]) == [picture("red"), picture("red"), picture("blue")]


def test_urls_that_differ_in_a_signature_alone_are_different_images(tmp_path):
    urls = [f"https://h/a.jpg?token={number}" for number in (1, 2, 1)]
    (tmp_path / "m.csv").write_text("\n".join(["url", *urls, "https://h/b.jpg?token=1"]))
    ids = [item.image_id for item in find_images(str(tmp_path / "m.csv"))]
    assert len(ids) == 3
    assert ids[2] == "https://h/b.jpg"
    assert all(one.startswith("https://h/a~") and one.endswith(".jpg") for one in ids[:2])
    (tmp_path / "m.csv").write_text("\n".join(["id,url", f"1,{urls[0]}", f"1,{urls[1]}"]))
    with pytest.raises(SessError, match="has id '1' for two images"):
        find_images(str(tmp_path / "m.csv"))


def test_ids_do_not_change_with_the_signature():
    assert public(f"https://h/a.jpg?{SIGNED}") == public(f"https://h/a.jpg?{SIGNED}7") == "https://h/a.jpg"


def test_braces_mean_files_of_the_web_too(host):
    items = find_images(f"{host}/{{photos/1.png,s.tar}}?{SIGNED}")
    assert [item.image_id for item in items] == ["photos/1.png", "s.tar"]
    assert [is_shard(item.uri) for item in items] == [False, True]
    assert [image.name for image in read_shard(items[1].uri)] == ["a/1.png"]
    assert read_items([items[0].uri]) == [picture("red")]
    with pytest.raises(SessError, match=r"^cannot read \S+: ClientResponseError: 403"):
        find_images(f"{host}/s-{{1..3}}.tar?{SIGNED}")


def test_parquet_with_image_bytes(host):
    items = find_images(f"{host}/p.parquet?{SIGNED}")
    assert [item.image_id for item in items] == ["p.parquet#0", "p.parquet#1"]
    assert read_items([item.uri for item in items]) == [picture("red"), picture("blue")]


def test_a_tar_shard(host):
    items = list_images(f"{host}/s.tar?{SIGNED}")
    assert (items["image_id"].to_pylist(), shard_rows(items["uri"]).to_pylist()) == (["s.tar"], [True])
    [uri] = items["uri"].to_pylist()
    assert [(image.name, image.content) for image in read_shard(uri)] == [("a/1.png", picture("red"))]
    assert read_items([f"{uri}#a/1.png"]) == [picture("red")]


def test_what_is_not_there_is_said_without_the_signature(host):
    for path in (f"x.png?{SIGNED}x", "photos/1.png?X-Amz-Signature=wrong"):
        with pytest.raises(SessError, match=r"no such input|cannot read|no permission") as refused:
            find_images(f"{host}/{path}".replace(SECRET, SECRET[::-1]))
        assert "Signature" not in str(refused.value)
    [error] = read_items([f"{host}/photos/2.png?X-Amz-Signature=wrong"])
    assert "wrong" not in one_line(error)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://h/a.tar?x=1", True),
        ("https://h/a.TAR", True),
        ("https://h/a.jpg?file=x.tar", False),
        ("s3://b/a.tar", True),
        ("s3://b/a.tar?x=1", False),  # a name
        ("/data/a.tar", True),
    ],
)
def test_what_is_a_shard(uri, expected):
    assert is_shard(uri) is expected
    assert shard_rows(pa.chunked_array([[uri]])).to_pylist() == [expected]


def test_members_of_what_is_signed():
    assert split_uri("https://h/a.tar?s=b.tar#1#2.png") == ("https://h/a.tar?s=b.tar", "1#2.png")
    assert split_uri("https://h/a.jpg?f=b.tar#1") == ("https://h/a.jpg?f=b.tar#1", None)


@pytest.mark.parametrize(
    "url",
    [
        f"https://bucket.s3.amazonaws.com/a b.jpg?{SIGNED}",
        f"https://b.s3.amazonaws.com/a.jpg?AWSAccessKeyId=AKIA{SECRET}&Signature={SECRET}%3D&Expires=17{SECRET}",
        f"https://storage.googleapis.com/b/a.jpg?X-Goog-Algorithm=x&X-Goog-Credential={SECRET}&X-Goog-Signature={SECRET}",
        f"https://storage.googleapis.com/b/a.jpg?GoogleAccessId={SECRET}&Expires=1&Signature={SECRET}",
        f"https://x.blob.core.windows.net/c/a.jpg?sv=2022-11-02&sr=b&sig={SECRET}&se=2026&sp=r&skoid={SECRET}",
        f"https://cdn.net/a.jpg?Policy={SECRET}&Signature={SECRET}&Key-Pair-Id={SECRET}",
        f"https://oss.aliyuncs.com/a.jpg?OSSAccessKeyId={SECRET}&Expires=1&Signature={SECRET}",
        f"https://cos.myqcloud.com/a.jpg?q-sign-algorithm=sha1&q-ak={SECRET}&q-signature={SECRET}",
        f"https://firebase.com/o/a.jpg?alt=media&token={SECRET}",
        f"https://h/a.jpg?apiKey={SECRET}&api_key={SECRET}&password={SECRET}&session_id={SECRET}",
        f"https://h/a.jpg?t=aB3{SECRET}",
        f"https://user:{SECRET}@h/a.jpg",
        f"simplecache::https://h/a.jpg?sig={SECRET}",
        f"HTTPS://h/a.jpg?sig={SECRET}",
        f"https://h/a.jpg#access_token={SECRET}&state=1",
        f"https://h/a.jpg?size=2#id=3&sig={SECRET}",
        f"https://h/a.jpg?passphrase={SECRET}",
    ],
)
def test_no_secret_is_shown(url):
    assert SECRET not in public(url)
    for text in (
        f"cannot read {url!r}",
        f"{url} is not there",
        f"Got 403, url='{url}'",
        f"see /a b.jpg?{url.partition('?')[2]}",
    ):
        assert SECRET not in public_text(text), text
