"""Where a path or a URL leads, so that two spellings of one place can be told for one."""

from __future__ import annotations

import os
import re
from itertools import product

from sess_ray.access import public
from sess_ray.errors import SessError

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


_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
MOST_BRACES = 100_000  # files that braces may mean


def expanded(url: str) -> list[str]:
    """Return what braces mean, as WebDataset writes the names of shards; the URL itself where there are none.

    Raises
    ------
    SessError
        If that is too many.

    Examples
    --------
    >>> expanded("s3://bucket/train-{008..010}.tar")
    ['s3://bucket/train-008.tar', 's3://bucket/train-009.tar', 's3://bucket/train-010.tar']
    >>> expanded("{train,val}-{0..1}.tar"), expanded("{a}.tar")
    (['train-0.tar', 'train-1.tar', 'val-0.tar', 'val-1.tar'], ['{a}.tar'])
    """
    # Between two patterns lies what stands as it is; each pattern gives three parts, of which its kind fills some.
    parts = _BRACES.split(url)
    choices, count = [[parts[0]]], 1
    for first, last, listed, text in zip(parts[1::4], parts[2::4], parts[3::4], parts[4::4], strict=True):
        low, high = sorted((int(first or 0), int(last or 0)))
        numbers = range(low, high + 1)
        count *= len(numbers) if listed is None else listed.count(",") + 1
        if count > MOST_BRACES:
            raise SessError(f"{public(url)}: the braces mean {count} files and more: give a glob or a manifest")
        width = len(first or "") if (first or "").startswith("0") else 0
        choices += [[f"{number:0{width}}" for number in numbers] if listed is None else listed.split(","), [text]]
    return ["".join(chosen) for chosen in product(*choices)]
