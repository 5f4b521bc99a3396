"""How odd paths are opened: names that are no UTF-8, and names with ``::``, which fsspec takes for a chain.

A chain is a file system in another, such as ``zip://a.json::s3://bucket/a.zip``: what stands before the first ``::`` is
the protocol of such a file system, or begins with it. Any other ``::`` belongs to a name.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote

import fsspec

# Of fsspec's file systems those that lie in another one.
NESTED = frozenset(
    (
        *("zip", "tar", "libarchive", "7z", "dir", "reference", "async_wrapper"),
        *("simplecache", "filecache", "blockcache", "cached"),
    )
)
_BYTE = re.compile(r"\\x([0-9a-f]{2})")


def is_chain(url: str) -> bool:
    """Say whether a URL is a chain of file systems.

    Examples
    --------
    >>> is_chain("zip://a.json::s3://bucket/a.zip"), is_chain("simplecache::s3://bucket/a")
    (True, True)
    >>> is_chain("/data/std::vector.png"), is_chain("s3://bucket/std::vector.png"), is_chain("zip://a.json")
    (False, False, False)
    """
    first, separator, _ = url.partition("::")
    return bool(separator) and first.partition("://")[0] in NESTED


def filesystem_of(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it, as `fsspec.core.url_to_fs` but for odd names."""
    if "::" not in url or is_chain(url):
        filesystem, path = fsspec.core.url_to_fs(url)
    else:
        protocol, separator, _ = url.partition("://")
        kind = fsspec.get_filesystem_class(protocol if separator else "file")
        filesystem, path = kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)
    return filesystem, as_named(filesystem, url, path)


def path_of(filesystem: fsspec.AbstractFileSystem, url: str) -> str:
    """Return the path of a URL in its file system."""
    return filesystem_of(url)[1] if is_chain(url) else as_named(filesystem, url, filesystem._strip_protocol(url))


def opened(url: str) -> Any:
    """Return a file of any file system, open to read its bytes."""
    filesystem, path = filesystem_of(url)
    return filesystem.open(path, "rb")


def is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Say whether a file system is this machine's."""
    return isinstance(filesystem, fsspec.implementations.local.LocalFileSystem)


def refuse_special(filesystem: fsspec.AbstractFileSystem, path: str) -> None:
    """Raise `OSError` for what is neither file nor folder on this machine: a pipe would be waited for without end."""
    if is_local(filesystem) and os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OSError(f"no regular file: {path}")


# --- names that are written otherwise ---


def readable(text: str) -> str:
    r"""Return a text as UTF-8 can hold it: what Python made of other bytes in a name is written as ``\xNN``.

    Examples
    --------
    >>> readable(os.fsdecode(b"caf\xe9.jpg"))
    'caf\\xe9.jpg'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:  # half of a pair, as JSON may hold it
            return text.encode("utf-8", "backslashreplace").decode()
    return text


def as_named(filesystem: fsspec.AbstractFileSystem, url: str, path: str) -> str:
    r"""Return the path of a local file as the disk has it, where the URL writes it otherwise; another as it is.

    That is: bytes as `readable` shows them, backslashes of another system, and ``%20`` in a URL that begins with
    ``file://``. What is there under the name itself comes first.
    """
    if not is_local(filesystem) or not ("\\" in path or "%" in path) or os.path.lexists(path):
        return path
    quoted = url.startswith("file://") and "%" in path
    found = ""
    for number, part in enumerate(path.split("/")):
        ways = [part, _raw(part), part.replace("\\", "/"), *([unquote(part)] if quoted else [])]
        places = [f"{found}/{way}" if number else way for way in ways]
        found = next(filter(os.path.lexists, places), places[0])
    return found


def _raw(part: str) -> str:
    parts = _BYTE.split(part)  # every other one is the two digits of a byte
    raw = (bytes.fromhex(text) if number % 2 else os.fsencode(text) for number, text in enumerate(parts))
    return os.fsdecode(b"".join(raw))
