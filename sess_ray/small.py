"""Reading small files whole: class names, class maps, annotations, weights."""

from __future__ import annotations

import codecs

from sess_ray.access import one_line, open_filesystem, patiently, public, shown
from sess_ray.errors import SessError

# How texts begin that say how they are encoded, the longer marks first.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    *((mark, "utf-16") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)

# How compressed files begin.
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip"}


def packed_by(content: bytes) -> str | None:
    """Return what has compressed a file, by its first bytes; None for what is no compressed file."""
    return next((kind for magic, kind in PACKED.items() if content.startswith(magic)), None)


def as_text(content: bytes, errors: str = "strict") -> str:
    """Return a text as its byte order mark says, without one as UTF-8.

    Raises
    ------
    UnicodeDecodeError

    Examples
    --------
    >>> as_text("caf\u00e9".encode("utf-16")) == as_text("caf\u00e9".encode()) == "caf\u00e9"
    True
    """
    return content.decode(marked(content) or "utf-8", errors)


def marked(content: bytes) -> str | None:
    """Return the encoding that the byte order mark of a text names."""
    return next((encoding for mark, encoding in MARKS if content.startswith(mark)), None)


def read_text(url: str, what: str) -> bytes:
    """Return the bytes of a file as `read_small`, but of one that is to be text: a compressed one is refused."""
    content = read_small(url, what)
    packed = packed_by(content)
    if packed:
        raise SessError(f"{what} {public(url)}: compressed by {packed}, unpack the file first")
    return content


def read_small(url: str, what: str) -> bytes:
    """Return the bytes of a file; what fails in passing is tried again, as `Access.patience` says.

    Parameters
    ----------
    url : str
        A path or any URL that fsspec opens.
    what : str
        What it is to hold, for the message, such as "weights".

    Raises
    ------
    SessError
        In one line, which shows nothing secret of the URL.
    """
    try:
        filesystem, path = open_filesystem(url)
        content: bytes = patiently(filesystem.cat_file, path)
    except FileNotFoundError as error:
        raise SessError(f"no such {what}: {public(url)}") from shown(error)
    except Exception as error:
        raise SessError(f"cannot read {what} {public(url)!r}: {one_line(error)}") from shown(error)
    return content
