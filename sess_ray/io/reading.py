"""Reading the bytes of images: files, rows of Parquet files, members of tar shards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pyarrow.parquet as pq

from sess_ray.access import persistent, public, read_files
from sess_ray.errors import SessError
from sess_ray.io.items import is_shard, split_uri
from sess_ray.io.manifests import bytes_column
from sess_ray.io.shards import content_of
from sess_ray.io.shards import members as tar_members
from sess_ray.opening import is_chain, opened

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
    plain: dict[str, dict[int, str]] = {}
    for index, uri in enumerate(uris):
        file, member = split_uri(uri)
        if member is not None:
            groups.setdefault(file, {}).setdefault(member, []).append(index)
        elif is_chain(file):
            plain[file] = {**plain.get(file, {}), index: file}
        else:
            plain.setdefault(file.partition("://")[0] if "://" in file else "", {})[index] = file
    for files in plain.values():
        try:
            contents = read_files(list(files.values()))
        except Exception as error:
            contents = [error] * len(files)
        yield from zip(files, contents, strict=True)
    for file, members in groups.items():
        yield from _members(file, members)


def _members(file: str, members: dict[str, list[int]]) -> Iterator[tuple[int, bytes | Exception]]:
    """Yield the contents of members of one file; what several items share, for each of them."""
    left = dict(members)
    reader = _tar_members if is_shard(file) else _parquet_rows
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
    with opened(file) as handle:
        parquet = pq.ParquetFile(handle)
        column = bytes_column(parquet.schema_arrow)
        if column is None:
            raise SessError(f"{public(file)} has no column of image bytes")
        first = 0
        for group in range(parquet.num_row_groups):
            last = first + parquet.metadata.row_group(group).num_rows
            some = [row for row in wanted if first <= row < last]
            if some:
                yield from _group_rows(parquet, group, column, first, some)
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
    for member in tar_members(file):
        if member.name in names:
            left -= 1
            if left < 0:
                yield member.name, content_of(member)
