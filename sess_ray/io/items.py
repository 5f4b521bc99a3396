"""One image of the input: what it is called, where it is read, and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.signing import file_of, is_web, marked, named_apart

HEIF = (".heic", ".heif", ".hif")  # with pillow-heif
# fmt: off
IMAGE_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif", ".jp2",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", *(HEIF if find_spec("pillow_heif") else ()),
))
# fmt: on
SHARD = ".tar"

HERE = "./"
ITEMS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("targets", pa.list_(pa.string())),
        ("folder", pa.string()),
        ("error", pa.string()),
    ]
)
CHUNK = 16_384  # rows that are Python objects at the same time


@dataclass
class Item:
    """One image to explain.

    Attributes
    ----------
    image_id : str
        Its path below the input, or the manifest's id; unique.
    uri : str
        Where it is read; FILE.parquet#ROW or FILE.tar#MEMBER where it lies in another file.
    labels : list of str or None
        Its classes, by the manifest.
    targets : list of str or None
        Classes to explain, by the manifest.
    folder : str or None
        The folders below the input that it lies in, with slashes between them; in none, the input's own name after
        `HERE`.
    error : str or None
        Why there is nothing to read.
    """

    image_id: str
    uri: str
    labels: list[str] | None = None
    targets: list[str] | None = None
    folder: str | None = None
    error: str | None = None


def folder_label(folder: str | None, level: int) -> list[str]:
    """Return the label of the images in a folder, of which those of a level are classes; none where it is too far up.

    >>> folder_label("val/n01440764", 1), folder_label("val", 1), folder_label("./photos", 1)
    (['n01440764'], [], ['photos'])
    """
    if folder is None or folder.startswith(HERE):
        return [] if folder in (None, HERE) else [folder.removeprefix(HERE)]
    return folder.split("/")[level : level + 1]


_PLACE = r"https?://[^?#]*\.{kind}(?:\?[^#]*)?|(?!https?://).*?\.{kind}"
_MEMBER = re.compile(
    rf"({_PLACE.format(kind='parquet')})#((?:.+/)?[0-9]+)|({_PLACE.format(kind='tar')})#(.*)", re.DOTALL | re.IGNORECASE
)
_WHOLE = "#"  # behind the URI of a file whose name looks like a member of another


def split_uri(uri: str) -> tuple[str, str | None]:
    """Return the file of a URI and, of FILE.parquet#ROW and FILE.tar#MEMBER, what of it is meant.

    Examples
    --------
    >>> split_uri("s3://bucket/train-0.tar#n01/cat #1.jpg")
    ('s3://bucket/train-0.tar', 'n01/cat #1.jpg')
    >>> split_uri("cat #1.jpg")
    ('cat #1.jpg', None)
    >>> split_uri("https://host/a.parquet?sig=5#7")
    ('https://host/a.parquet?sig=5', '7')
    >>> split_uri(whole_uri("a.tar#1.jpg"))
    ('a.tar#1.jpg', None)
    """
    if uri.endswith(_WHOLE) and _MEMBER.fullmatch(uri.removesuffix(_WHOLE)):
        return uri.removesuffix(_WHOLE), None
    found = _MEMBER.fullmatch(uri)
    return (found[1] or found[3], found[2] or found[4]) if found else (uri, None)


def whole_uri(uri: str) -> str:
    """Return the URI of a file as such: one that is called a.tar#1.jpg is no member of a.tar.

    >>> whole_uri("cat #1.jpg"), whole_uri("a.tar#1.jpg"), whole_uri("p.parquet#2"), whole_uri("p.parquet#2.jpg")
    ('cat #1.jpg', 'a.tar#1.jpg#', 'p.parquet#2#', 'p.parquet#2.jpg')
    """
    return uri + _WHOLE if _MEMBER.fullmatch(uri) else uri


def is_shard(uri: str) -> bool:
    """Say whether a URI is a tar shard as a whole."""
    return file_of(uri).lower().endswith(SHARD)


def shard_rows(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say of each URI whether it is a tar shard as a whole."""
    behind = pc.match_substring_regex(uris, rf"^[^?#]*\{SHARD}([?#].*)?$", ignore_case=True)
    return pc.if_else(pc.match_substring_regex(uris, "^https?://", ignore_case=True), behind, _ends(uris))


def _ends(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.ends_with(uris, SHARD, ignore_case=True)


def distinct(items: pa.Table, url: str) -> pa.Table:
    """Make ids unique: rows of one image are its targets; other images of a manifest's path are numbered."""
    counts = items["image_id"].value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if not len(twice):
        return items

    def refused(row: dict[str, Any], _: int) -> NoReturn:
        raise SessError(f"{public(url)} has id {row['image_id']!r} for two images")

    repeated = pc.is_in(items["image_id"], twice)
    numbers = pc.indices_nonzero(repeated).to_pylist()
    found = joined(items.filter(repeated).to_pylist(), numbers, refused)
    single = items.append_column("number", pa.array(range(items.num_rows), pa.int64())).filter(pc.invert(repeated))
    several = pa.Table.from_pylist([row for row, _ in found], ITEMS)
    several = several.append_column("number", pa.array([rows[0] for _, rows in found], pa.int64()))
    return pa.concat_tables([single, several]).sort_by("number").drop_columns(["number"])


def joined(
    rows: list[dict[str, Any]], numbers: Iterable[int], other: Callable[[dict[str, Any], int], dict[str, Any]]
) -> list[tuple[dict[str, Any], list[int]]]:
    """Join the rows of a table that are of one image.

    Parameters
    ----------
    rows : list of dict
        As `ITEMS` has them.
    numbers : iterable of int
        What each is called in the table.
    other : callable
        A row that has the id of another image, and its number, to what stands for it.

    Returns
    -------
    list of (dict, list of int)
        Each image, and the numbers of its rows.
    """
    found: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for number, row in zip(numbers, _apart_by_query(rows), strict=True):
        before = found.get(row["image_id"])
        if before is not None and before[0]["uri"] == row["uri"]:  # one row a target
            for kind in ("labels", "targets"):
                before[0][kind] = list(dict.fromkeys([*(before[0][kind] or []), *(row[kind] or [])])) or None
            before[1].append(number)
            continue
        own = dict(row)
        if before is not None:
            _, member = split_uri(row["uri"])
            own = other(own, number) if member is None else {**own, "image_id": f"{row['image_id']}#{member}"}
        found[own["image_id"]] = own, [number]
    return list(found.values())


def _apart_by_query(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark the ids of rows that are called by URLs which differ in nothing but a signature: each may be an image."""
    places: dict[str, set[str]] = {}
    for row in rows:
        if is_web(row["uri"]) and row["image_id"] == public(named_apart(row["uri"])):
            places.setdefault(row["image_id"], set()).add(row["uri"])
    several = {name for name, uris in places.items() if len(uris) > 1}

    def marked_id(row: dict[str, Any]) -> str:
        name: str = row["image_id"]
        return marked(name, row["uri"].partition("?")[2]) if name in several and is_web(row["uri"]) else name

    return [{**row, "image_id": marked_id(row)} for row in rows]
