"""Reading the bytes of images: files, rows of Parquet files, members of tar shards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from sess_ray.access import persistent, public, read_files
from sess_ray.io.items import is_shard, split_uri
from sess_ray.io.packed import packed_rows
from sess_ray.io.shards import content_of
from sess_ray.io.shards import members as tar_members
from sess_ray.opening import is_chain


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
    reader = _tar_members if is_shard(file) else packed_rows
    try:
        for name, content in persistent(lambda had: reader(file, members, had)):
            yield from ((index, content) for index in left.pop(name))
    except Exception as error:
        yield from ((index, error) for indices in left.values() for index in indices)
        return
    for name, indices in left.items():
        missing = FileNotFoundError(f"no {name!r} in {public(file)}")
        yield from ((index, missing) for index in indices)


def _tar_members(file: str, names: Collection[str], had: int) -> Iterator[tuple[str, bytes | Exception]]:
    """Yield members in the shard's order, the first `had` of them left out."""
    left = had
    for member in tar_members(file):
        if member.name in names:
            left -= 1
            if left < 0:
                yield member.name, content_of(member)
