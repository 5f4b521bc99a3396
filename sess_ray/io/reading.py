"""Reading the bytes of images: files, rows of Parquet files, members of tar shards."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow.parquet as pq

from sess_ray.access import is_passing, persistent, public, read_files
from sess_ray.errors import SessError
from sess_ray.io.items import IMAGE_EXTENSIONS, SHARD, split_uri
from sess_ray.io.manifests import bytes_column

BATCH_ROWS = 16  # of a Parquet file with image bytes, read at a time


def read_items(uris: Sequence[str]) -> list[bytes | Exception]:
    """Read the bytes of images, those of one file system, Parquet file or tar shard together.

    Parameters
    ----------
    uris : sequence of str
        As in `sess_ray.io.items.Item`.

    Returns
    -------
    list of bytes or Exception
        The exception where an image could not be read.
    """
    results: list[bytes | Exception] = [FileNotFoundError()] * len(uris)
    for index, content in stream_items(uris):
        results[index] = content
    return results


def stream_items(uris: Sequence[str]) -> Iterator[tuple[int, bytes | Exception]]:
    """Read images as `read_items` does; yield each with its index, a few in memory where they share a file."""
    groups: dict[str, dict[str, list[int]]] = {}
    plain: dict[str, list[int]] = {}
    for index, uri in enumerate(uris):
        file, member = split_uri(uri)
        if member is None:
            plain.setdefault(uri.partition("://")[0] if "://" in uri else "", []).append(index)
        else:
            groups.setdefault(file, {}).setdefault(member, []).append(index)
    for indices in plain.values():
        try:
            contents = read_files([uris[index] for index in indices])
        except Exception as error:
            contents = [error] * len(indices)
        yield from zip(indices, contents, strict=True)
    for file, members in groups.items():
        yield from _members(file, members)


def _members(file: str, members: dict[str, list[int]]) -> Iterator[tuple[int, bytes | Exception]]:
    """Yield the contents of members of one file; what several items share, for each of them."""
    left = dict(members)
    reader = _tar_members if file.lower().endswith(SHARD) else _parquet_rows
    try:
        for name, content in persistent(lambda had: reader(file, members, had)):
            yield from ((index, content) for index in left.pop(name))
    except Exception as error:
        yield from ((index, error) for indices in left.values() for index in indices)
        return
    for name, indices in left.items():
        missing = FileNotFoundError(f"no {name!r} in {public(file)}")
        yield from ((index, missing) for index in indices)


def _parquet_rows(file: str, names: Collection[str], had: int) -> Iterator[tuple[str, bytes | Exception]]:
    """Yield rows in the file's order, the first `had` of them left out."""
    wanted = sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)[had:]
    if not wanted:
        return
    with fsspec.open(file, "rb") as handle:
        opened = pq.ParquetFile(handle)
        column = bytes_column(opened.schema_arrow)
        if column is None:
            raise SessError(f"{public(file)} has no column of image bytes")
        first = 0
        for group in range(opened.num_row_groups):
            last = first + opened.metadata.row_group(group).num_rows
            some = [row for row in wanted if first <= row < last]
            if some:
                yield from _group_rows(opened, group, column, first, some)
            first = last


def _group_rows(
    file: pq.ParquetFile, group: int, column: str, first: int, wanted: list[int]
) -> Iterator[tuple[str, bytes | Exception]]:
    left = set(wanted)
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column]):
        for offset in range(batch.num_rows):
            row = first + offset
            if row in left:
                value = batch[0][offset].as_py()
                content = value.get("bytes") if isinstance(value, dict) else value
                yield str(row), content if content is not None else SessError("the row holds no image bytes")
        first += batch.num_rows


def _tar_members(file: str, names: Collection[str], had: int) -> Iterator[tuple[str, bytes | Exception]]:
    """Yield members in the shard's order, the first `had` of them left out."""
    left = had
    for name, _, content in _tar_files(file):
        if name in names:
            left -= 1
            if left < 0:
                yield name, content()


def _tar_files(file: str) -> Iterator[tuple[str, int, Any]]:
    """Yield the names in a tar shard, each with where it begins and a function that reads it.

    A name that comes again is numbered.
    """
    seen: dict[str, int] = {}
    with fsspec.open(file, "rb") as handle, tarfile.open(fileobj=handle, mode="r:") as shard:
        for member in shard:
            if member.isfile():
                seen[member.name] = seen.get(member.name, 0) + 1
                name = member.name if seen[member.name] == 1 else f"{member.name}#{seen[member.name]}"
                yield name, member.offset, lambda member=member: shard.extractfile(member).read()  # type: ignore[union-attr]


@dataclass
class ShardImage:
    """An image of a tar shard.

    Attributes
    ----------
    name : str
        In the shard.
    content : bytes or Exception
    label : str or None
        What the .cls file of its sample says.
    behind : int or None
        Where in the shard the next sample begins; None where it is the last.
    """

    name: str
    content: bytes | Exception
    label: str | None = None
    behind: int | None = None


def read_shard(file: str, skip: Collection[str] = ()) -> Iterator[ShardImage]:
    """Yield the images of a tar shard in WebDataset's layout: files of one sample share what stands before the dot.

    Parameters
    ----------
    file : str
        Path or URL.
    skip : collection of str
        Names to leave out.

    Raises
    ------
    Exception
        What a file system raises, or `tarfile.ReadError` where the shard ends early; what came before is yielded.
    """
    skipped = frozenset(skip)
    yield from persistent(lambda had: _shard_images(file, skipped, had))


def _shard_images(file: str, skip: frozenset[str], had: int) -> Iterator[ShardImage]:
    waiting: list[ShardImage] = []  # images of the sample that is being read: its label may come before or after
    sample, label, left = None, None, had
    for name, begin, content in _tar_files(file):
        key, _, extension = posixpath.basename(name).partition(".")
        key = posixpath.join(posixpath.dirname(name), key)
        if key != sample:
            yield from _labelled(waiting, label, begin)
            waiting, sample, label = [], key, None
        if extension == "cls":
            label = content().decode(errors="replace").strip() or None
        elif f".{extension.rpartition('.')[2].lower()}" in IMAGE_EXTENSIONS and name not in skip:
            left -= 1
            if left < 0:
                waiting.append(ShardImage(name, _content(content)))
    yield from _labelled(waiting, label, None)


def _content(read: Any) -> bytes | Exception:
    try:
        return read()
    except Exception as error:
        if is_passing(error):
            raise
        return error


def _labelled(images: list[ShardImage], label: str | None, behind: int | None) -> Iterator[ShardImage]:
    for image in images:
        image.label, image.behind = label, behind
        yield image
