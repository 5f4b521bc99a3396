"""Where a path or a URL leads, so that two spellings of one place can be told for one."""

from __future__ import annotations

import os

# Protocols that fsspec knows under several names.
_SAME = {"s3a": "s3", "gcs": "gs"}
_LOCAL = ("file", "local")


def resolved(url: str) -> str:
    """Return the place that a path or a URL leads to, spelled in one way.

    Parameters
    ----------
    url : str
        A path, also a glob; or a URL.

    Returns
    -------
    str
        An absolute path without links, or a URL without a trailing slash (which a web server may tell from one
        without).

    Examples
    --------
    >>> resolved("./images/") == resolved("images") == resolved(os.path.realpath("images"))
    True
    >>> resolved("s3a://bucket/images/"), resolved("gcs://bucket"), resolved("http://host/images/")
    ('s3://bucket/images', 'gs://bucket', 'http://host/images/')
    """
    protocol, separator, path = url.partition("://")
    if not separator:
        return os.path.realpath(os.path.expanduser(url))
    if protocol in _LOCAL:
        return os.path.realpath(path)
    if protocol in ("http", "https") or "::" in protocol:
        return url
    return f"{_SAME.get(protocol, protocol)}://{path.rstrip('/')}"


def is_below(place: str, folder: str) -> bool:
    """Say whether a place is a folder or lies in it; both `resolved`.

    >>> is_below("/data/out", "/data"), is_below("/data", "/data"), is_below("/database", "/data")
    (True, True, False)
    """
    return place == folder or place.startswith(f"{folder.rstrip('/')}/")
