"""Reading small files whole: class names, class maps, annotations, weights."""

from __future__ import annotations

from sess_ray.access import one_line, open_filesystem, patiently, public, shown
from sess_ray.errors import SessError


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
