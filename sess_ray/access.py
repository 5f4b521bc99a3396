"""How URLs are opened: options of file systems, how long to wait and try again, and what must not be written down.

Any URL that fsspec knows works. Credentials come from where each cloud's own tools look (environment, profiles, roles
of the machine); `Access.options` are for what those do not say.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from typing import Any, TypeVar

import fsspec
import fsspec.asyn

from sess_ray.errors import RunError, SessError
from sess_ray.opening import filesystem_of, path_of, readable, refuse_special
from sess_ray.signing import unsigned, without_signatures

T = TypeVar("T")

LONGEST_WAIT = 15.0  # seconds between two attempts
AT_ONCE = 16  # requests of one task


@dataclass(frozen=True)
class Access:
    """How URLs are opened, in each process that opens some.

    Attributes
    ----------
    options : mapping of str to mapping
        By protocol, what fsspec's file system of that protocol takes, such as {"s3": {"endpoint_url": ...}}.
    timeout : float
        Seconds for reading one file; then it is tried again.
    patience : float
        Seconds for which a request that fails in passing (throttling, resets, time-outs) is tried again.
    max_bytes : int
        Larger files are not read.
    """

    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timeout: float = 60.0
    patience: float = 120.0
    max_bytes: int = 1_000_000_000


_access = Access()


def use(access: Access) -> None:
    """Open URLs in this process as `access` says, from now on."""
    global _access  # noqa: PLW0603 - beside fsspec.config.conf, which is the process's too
    _access = access
    for protocol, options in access.options.items():
        fsspec.config.conf.setdefault(protocol, {}).update(options)


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it; `SessError` where its package is missing."""
    protocol, _, path = url.partition(":/")
    if path and path[0] != "/" and protocol in fsspec.available_protocols() and not os.path.lexists(f"{protocol}:"):
        raise SessError(f"{public(url)} lacks a slash: {protocol}:// ...")
    try:
        return filesystem_of(url)
    except (ImportError, ValueError, TypeError) as error:  # TypeError: an option that the file system does not take
        told = one_line(error).partition(": ")[2] if isinstance(error, ImportError | ValueError) else one_line(error)
        raise SessError(f"cannot open {public(url)}: {told}") from shown(error)


# --- trying again ---

_HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError, SessError)
_PASSING_ERRNO = {
    getattr(errno, name)
    for name in (
        *("EIO", "EAGAIN", "EBUSY", "ESTALE", "ETIMEDOUT", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE"),
        *("ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EREMOTEIO"),
    )
}
# By name, since the packages that define them are extras: botocore, aiohttp, Azure's SDK.
_PASSING_NAMES = {
    *("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "HTTPClientError"),
    *("ConnectionClosedError", "IncompleteReadError", "ResponseStreamingError"),
    *("ClientConnectionError", "ClientPayloadError", "ServerTimeoutError"),
    *("ServiceRequestError", "ServiceResponseError"),
}


def is_passing(error: BaseException) -> bool:
    """Say whether an error may pass: throttling, resets, time-outs, a server that is down.

    Examples
    --------
    >>> is_passing(ConnectionResetError()), is_passing(FileNotFoundError())
    (True, False)
    """
    if isinstance(error, _HOPELESS):
        return False
    status = _status(error)
    if status is not None:
        return status in (408, 425, 429) or (status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED)
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNO:
        return True
    return any(kind.__name__ in _PASSING_NAMES for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error of aiohttp, Google's or Azure's packages, or of botocore behind s3fs's."""
    answer = getattr(error.__cause__, "response", None)
    told = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    for found in (told, *(getattr(error, name, None) for name in ("status", "status_code", "code"))):
        if str(found).isdecimal() and 400 <= int(str(found)) < 600:
            return int(str(found))
    return None


def waits() -> Iterator[float]:
    """Yield the seconds to wait before each further attempt, until the patience is over."""
    end = time.monotonic() + _access.patience
    for attempt in count():
        wait = min(2.0**attempt, LONGEST_WAIT) * random.uniform(0.5, 1)  # noqa: S311 - so that tasks do not come together
        if time.monotonic() + wait > end:
            return
        yield wait


def patiently(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Return what a call returns; try again for a while when it fails in passing."""
    for wait in waits():
        try:
            return call(*arguments, **options)
        except Exception as error:
            if not is_passing(error):
                raise
            time.sleep(wait)
    return call(*arguments, **options)


def persistent(start: Callable[[int], Iterator[T]]) -> Iterator[T]:
    """Iterate over start(0); after an error that may pass go on with start(n), n the number of items had before."""
    had, left = 0, waits()
    while True:
        try:
            for item in start(had):
                had, left = had + 1, waits()
                yield item
            return
        except Exception as error:
            wait = next(left, None) if is_passing(error) else None
            if wait is None:
                raise
            time.sleep(wait)


# --- reading ---


def read_files(uris: Sequence[str]) -> list[bytes | Exception]:
    """Read whole files of one file system, several at once, trying again what fails in passing.

    Returns
    -------
    list of bytes or Exception
        The exception where a file could not be read.
    """
    filesystem, _ = open_filesystem(uris[0])
    paths = [path_of(filesystem, uri) for uri in uris]
    contents = _fetch(filesystem, paths)
    for wait in waits():
        again = [i for i, found in enumerate(contents) if isinstance(found, Exception) and is_passing(found)]
        if not again:
            break
        time.sleep(wait)
        for index, found in zip(again, _fetch(filesystem, [paths[i] for i in again]), strict=True):
            contents[index] = found
    return [_checked(found) for found in contents]


def _fetch(filesystem: fsspec.AbstractFileSystem, paths: list[str]) -> list[bytes | Exception]:
    end = _access.max_bytes + 1
    if isinstance(filesystem, fsspec.asyn.AsyncFileSystem):
        return list(fsspec.asyn.sync(filesystem.loop, _fetch_async, filesystem, paths, end, _access.timeout))
    results: list[bytes | Exception] = []
    for path in paths:
        try:
            refuse_special(filesystem, path)
            results.append(filesystem.cat_file(path, start=0, end=end))
        except Exception as error:
            results.append(error)
    return results


async def _fetch_async(
    filesystem: fsspec.asyn.AsyncFileSystem, paths: list[str], end: int, timeout: float
) -> list[bytes | Exception]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def fetch(path: str) -> bytes:
        async with gate:
            try:
                return await asyncio.wait_for(filesystem._cat_file(path, start=0, end=end), timeout)
            except TimeoutError as error:
                raise TimeoutError(f"no answer within {timeout:g} s") from error
            except Exception as error:
                if _status(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # an empty file has none
                    return b""
                raise

    return await asyncio.gather(*map(fetch, paths), return_exceptions=True)  # type: ignore[return-value]


def _checked(found: bytes | Exception) -> bytes | Exception:
    try:
        refuse_larger(len(found) if isinstance(found, bytes) else 0)
    except SessError as error:
        return error
    return found


def refuse_larger(size: int) -> None:
    """Raise `SessError` where something has more bytes than are to be read."""
    if size > _access.max_bytes:
        raise SessError(f"more than the {_access.max_bytes:,} bytes that --max-bytes allows")


# --- what must not be written down ---

# PROTOCOL.key=value where the key says that the value is a credential, or the value is an object that may hold one.
_SECRET = re.compile(
    r"(\w+\.(?:\w*(?:key|secret|token|password|passphrase|credential|sig|auth|connection_string)\w*(?==)|\w+(?==\{)))=.*",
    re.IGNORECASE | re.DOTALL,
)
_WEB_BEHIND = re.compile(r"::(?=https?://)", re.IGNORECASE)  # a chain of file systems
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)


def public(url: str) -> str:
    """Return a URL without the user, the password and the signature in it.

    Examples
    --------
    >>> public("https://user:pass@host/a.jpg?X-Amz-Signature=abc&size=2")
    'https://host/a.jpg?size=2'
    >>> public("s3://bucket/odd #name?.jpg")
    's3://bucket/odd #name?.jpg'
    """
    if "://" not in url:
        return url
    chain = _WEB_BEHIND.search(url)
    if chain:
        return url[: chain.end()] + public(url[chain.end() :])
    place = url.split("://", 1)[1].partition("/")[0]
    if "@" in place and url.partition("://")[0] not in ("abfs", "abfss"):  # there the container stands before the @
        url = url.replace(f"{place.rpartition('@')[0]}@", "", 1)
    return unsigned(url)


def public_text(text: str) -> str:
    """Return a text with its URLs made `public`."""
    return without_signatures(_URL.sub(lambda found: public(found[0]), text))


def public_option(given: str) -> str:
    """Return a flag's ``PROTOCOL.key=value`` without the value of a credential.

    Examples
    --------
    >>> public_option("s3.secret=abc"), public_option("s3.anon=true")
    ('s3.secret=***', 's3.anon=true')
    """
    return public_text(_SECRET.sub(r"\1=***", given))


def public_command(arguments: Iterable[str]) -> list[str]:
    """Return a command line without credentials.

    Examples
    --------
    >>> public_command(["--storage-option=s3.secret=abc", "--input", "http://user:pass@host/a"])
    ['--storage-option=s3.secret=***', '--input', 'http://host/a']
    """
    return [public_option(entry) for entry in arguments]


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a job without credentials: neither in URLs nor as options of a file system."""

    def kept(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [kept(entry) for entry in value]
        return public_option(value) if isinstance(value, str) else value

    return {name: kept(value) for name, value in settings.items()}


def one_line(error: BaseException) -> str:
    """Return type and message of an error in one line, without secrets; the message alone of our own.

    What an operating system says is said in its words, with the file; of a file that is not there nothing but that.

    Examples
    --------
    >>> one_line(OSError(errno.ENOSPC, "No space left on device", "out/x")), one_line(FileNotFoundError("bucket/a.jpg"))
    ('No space left on device: out/x', 'no such file: bucket/a.jpg')
    >>> one_line(ValueError("odd"))
    'ValueError: odd'
    """
    name, told = type(error).__name__, str(error)
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        name, told = str(error.strerror), os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if isinstance(error, FileNotFoundError | PermissionError):
        name = "no such file" if isinstance(error, FileNotFoundError) else "no permission"
    message = " ".join(told.split())
    plain = isinstance(error, SessError | RunError)
    return public_text(readable(message if plain else f"{name}: {message}" if message else name))


def shown(error: BaseException) -> BaseException | None:
    """Return an error as the cause of one of ours; None where its text, or that of its own causes, holds a secret.

    A notebook prints causes too, in full.

    Examples
    --------
    >>> shown(FileNotFoundError("https://host/a?X-Amz-Signature=abc")), shown(KeyError("a"))
    (None, KeyError('a'))
    """
    cause: BaseException | None = error
    while cause is not None:
        if public_text(str(cause)) != str(cause):
            return None
        cause = cause.__cause__ or cause.__context__
    return error
