"""Reading tar shards in WebDataset's layout: files of one sample share what stands before the first dot."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import IO, Any

from sess_ray.access import is_passing, persistent, refuse_larger
from sess_ray.errors import SessError
from sess_ray.io.columns import LABEL_COLUMNS
from sess_ray.io.items import IMAGE_EXTENSIONS
from sess_ray.opening import opened, readable
from sess_ray.small import PACKED, as_text, packed_by

CLASS, FACTS = "cls", "json"  # extensions of the files that say a sample's label; the first counts where both do
BEHIND = 2**20  # bytes behind the end in which another archive is looked for; the end itself takes some ten thousand


@dataclass(frozen=True)
class Member:
    """A file in a tar shard.

    Attributes
    ----------
    name : str
        One that comes again is numbered: NAME#2.
    path : str
        Its name as the shard has it.
    begin : int
        Where in the shard it begins, in bytes.
    read : callable
        Returns its bytes.
    """

    name: str
    path: str
    begin: int
    read: Callable[[], bytes]


@dataclass
class ShardImage:
    """An image of a tar shard.

    Attributes
    ----------
    name : str
        In the shard.
    content : bytes, Exception or None
        None where it is left out.
    label : str or None
        What the .cls file of its sample says, else the .json file: an object with ``label`` (or ``class``,
        ``class_index``, ``cls``).
    behind : int or None
        Where in the shard the next sample begins; None where it is the last.
    """

    name: str
    content: bytes | Exception | None
    label: str | None = None
    behind: int | None = None


def read_shard(file: str, skip: Collection[str] = ()) -> Iterator[ShardImage]:
    """Yield the images of a tar shard; hidden ones, which macOS leaves beside each file, are left out.

    Parameters
    ----------
    file : str
        Path or URL.
    skip : collection of str
        Names of which the content is left out.

    Raises
    ------
    Exception
        What a file system raises, `tarfile.ReadError` where the shard ends early or is damaged, or `SessError`; what
        came before is yielded.
    """
    skipped = frozenset(skip)
    yield from persistent(lambda had: _images(file, skipped, had))


def members(file: str) -> Iterator[Member]:
    """Yield the files in a tar shard; what a link in it means, too.

    Raises
    ------
    Exception
        As `read_shard`.
    """
    seen: dict[str, int] = {}
    plain: dict[str, tarfile.TarInfo] = {}
    with opened(file) as handle, _opened(handle) as shard:
        for member in shard:
            if member.isfile():
                plain[member.name] = member
            elif not (member.islnk() or member.issym()):
                continue
            path = readable(member.name)
            seen[path] = seen.get(path, 0) + 1
            name = path if seen[path] == 1 else f"{path}#{seen[path]}"
            yield Member(name, path, member.offset, _reader(shard, member, plain))
        _check_end(handle, shard.offset)


def _opened(handle: IO[bytes]) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=handle, mode="r:", encoding="utf-8")
    except tarfile.ReadError as error:
        handle.seek(0)
        kind = packed_by(handle.read(max(map(len, PACKED))))
        if kind is None:
            raise
        raise SessError(f"the shard is compressed by {kind}: unpack it, images are compressed already") from error


def _check_end(handle: IO[bytes], end: int) -> None:
    """Raise where tarfile stops in silence: at a header that is damaged or cut, and between joined archives."""
    handle.seek(end)
    rest = handle.read(BEHIND)
    if rest[: tarfile.BLOCKSIZE].strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {end}: what follows is lost")
    begin = (len(rest) - len(rest.lstrip(b"\0"))) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    try:
        tarfile.TarInfo.frombuf(rest[begin : begin + tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return
    raise SessError(
        f"the shard ends at byte {end}, and another one is joined to it, which is not read: take them apart"
    )


def _reader(shard: tarfile.TarFile, member: tarfile.TarInfo, plain: dict[str, tarfile.TarInfo]) -> Callable[[], bytes]:
    """Return what reads a member; of a link, what it leads to in the shard, in whatever order they come."""

    def found() -> tarfile.TarInfo:
        at, hops = member, set()
        while at.islnk() or at.issym():
            folder = "" if at.islnk() else posixpath.dirname(at.name)
            name = posixpath.normpath(posixpath.join(folder, at.linkname))
            if name in hops:
                raise SessError(f"a link in the shard that leads to itself: {readable(member.name)}")
            hops.add(name)
            try:
                at = plain.get(name) or plain.get(at.linkname) or shard.getmember(name)
            except KeyError as error:
                raise SessError(f"a link to {readable(name)}, which is not in the shard") from error
        if not at.isfile():
            raise SessError(f"a link to {readable(at.name)}, which is no file")
        return at

    def read() -> bytes:
        plain = found()
        refuse_larger(plain.size)  # before memory is asked for it: the header of one that is damaged may say anything
        content: Any = shard.extractfile(plain)
        return content.read()

    return read


def _images(file: str, skip: frozenset[str], had: int) -> Iterator[ShardImage]:
    waiting: list[ShardImage] = []  # images of the sample that is being read: its label may come before or after
    labels: dict[str, str | None] = {}
    sample, left = None, had
    try:
        for member in members(file):
            folder, name = posixpath.split(member.path)
            if _is_hidden(member.path):
                continue
            stem, _, extension = name.partition(".")
            key, extension = posixpath.join(folder, stem), extension.lower()
            if key != sample:
                yield from _labelled(waiting, labels, member.begin)
                waiting, sample, labels = [], key, {}
            if extension in (CLASS, FACTS):
                labels[extension] = _label(extension, member.read())
            elif f".{extension.rpartition('.')[2]}" in IMAGE_EXTENSIONS:
                left -= 1
                if left < 0:
                    wanted = member.name.lstrip("/") not in skip
                    waiting.append(ShardImage(member.name, content_of(member) if wanted else None))
    except Exception as error:
        if not is_passing(error):  # else the sample is read again, with its label
            yield from _labelled(waiting, labels, None)
        raise
    yield from _labelled(waiting, labels, None)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def _label(extension: str, content: bytes) -> str | None:
    text = as_text(content, errors="replace").strip()
    if extension == CLASS:
        return text or None
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    known = (*LABEL_COLUMNS, CLASS) if isinstance(facts, dict) else ()
    match next((facts[name] for name in known if name in facts), None):
        case bool():
            return None
        case float(given) if given.is_integer():
            return str(int(given))
        case str() | int() as given:
            return str(given).strip() or None
    return None


def content_of(member: Member) -> bytes | Exception:
    """Return the bytes of a member, or why there are none; raise what may pass."""
    try:
        return member.read()
    except Exception as error:
        if is_passing(error):
            raise
        return error


def _labelled(images: list[ShardImage], labels: dict[str, str | None], behind: int | None) -> Iterator[ShardImage]:
    for image in images:
        image.label, image.behind = labels.get(CLASS) or labels.get(FACTS), behind
        yield image
