"""Names in buckets of S3 and Google's, listed folder by folder at the same time, and yielded in the bucket's order.

A list of names comes in pages of a thousand, each of which says where the next begins: one after the other. Folders can
be listed beside one another, at the price of a request for each. Where a page lies in a few folders they are listed so;
where it goes through many small ones, and in a folder that holds nothing but files, pages follow one another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec.asyn

from sess_ray.access import patiently

AT_ONCE = 16  # requests
PAYS = 4  # folders of one page; of more the next ones are small, too, and a request for each costs more than it gains
HELD = 100_000  # names that are there before it is their turn
AHEAD = 256  # parts of the list that are looked at before it is their turn


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes
    ----------
    names : list of str
        In their order.
    folders : list of str
        Where folders are not looked into: those on this page, each with a slash at its end.
    token : str or None
        Where the next page begins; None where this is the last.
    """

    names: list[str]
    folders: list[str]
    token: str | None


# Returns a page: of what begins so, with its folders instead of what is in them, behind a name, and with a token.
Ask = Callable[[str, bool, str, str | None], Page]


@dataclass
class _Part:
    """What is still to be listed: all names below a folder, or those and the folders directly in it, in its order."""

    prefix: str
    by_folder: bool = False
    after: str = ""
    past: str = ""  # a folder of which nothing is listed again
    token: str | None = None
    asked: Future[list[_Part | list[str]]] | None = field(default=None, compare=False)


def names_in(ask: Ask, prefix: str, after: str = "") -> Iterator[str]:
    """Yield the names that begin with a prefix, sorted as the bucket sorts them.

    Parameters
    ----------
    ask : callable
        Gives pages, also to several threads.
    prefix : str
        Empty, or with a slash at its end.
    after : str
        The last name that is known already.
    """
    parts: list[_Part | list[str]] = list(_rest(prefix, after) if after else [_Part(prefix)])
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="list")
    try:
        while parts:
            _look_ahead(parts, lambda part: pool.submit(_listed, ask, part))
            first = parts.pop(0) if parts else []  # the last pages may have been empty
            if isinstance(first, _Part):
                assert first.asked is not None
                parts[:0] = first.asked.result()
            else:
                yield from first
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _look_ahead(parts: list[_Part | list[str]], start: Callable[[_Part], Future[list[_Part | list[str]]]]) -> None:
    """Ask for what comes next, and put what is there already in the place of what was asked."""
    place = held = asked = 0
    while place < min(len(parts), AHEAD) and asked < AT_ONCE and held < HELD:
        part = parts[place]
        if not isinstance(part, _Part):
            held += len(part)
        elif part.asked is None:
            part.asked, asked = start(part), asked + 1
        elif part.asked.done() and not part.asked.exception():
            parts[place : place + 1] = part.asked.result()
            continue
        else:
            asked += 1
        place += 1


def _listed(ask: Ask, part: _Part) -> list[_Part | list[str]]:
    """Return the next page of a part, and what is left of it."""
    page = ask(part.prefix, part.by_folder, part.after, part.token)
    names = [name for name in page.names if name != part.after and not (part.past and name.startswith(part.past))]
    if part.by_folder:
        entries = _in_order(names, [folder for folder in page.folders if folder != part.past])
        return [*entries, *([] if page.token is None else [replace(part, token=page.token, asked=None)])]
    if page.token is None:
        return [names]
    folders = {name[: name.index("/", len(part.prefix))] for name in names if "/" in name[len(part.prefix) :]}
    if folders and len(folders) <= PAYS:
        return [names, *_rest(part.prefix, names[-1])]
    return [names, replace(part, token=page.token, asked=None)]


def _in_order(names: list[str], folders: list[str]) -> list[_Part | list[str]]:
    """Return names, and folders that are to be listed, as they would come if these were listed with the names."""
    found: list[_Part | list[str]] = []
    below = set(folders)
    for entry in sorted([*names, *folders]):
        if entry in below:
            found.append(_Part(entry))
        elif found and isinstance(found[-1], list):
            found[-1].append(entry)
        else:
            found.append([entry])
    return found


def _rest(prefix: str, last: str) -> Iterable[_Part]:
    """Return what is left behind a name: of its folder all, of the folders above what comes after the one below."""
    below = last[len(prefix) :].split("/")[:-1]
    folder = prefix + "".join(f"{name}/" for name in below)
    yield _Part(folder, after=last)
    for name in reversed(below):
        behind, folder = folder, folder[: -len(name) - 1]
        # A tilde comes behind nearly all that may be in that folder; what is left of it there is known by its name.
        yield _Part(folder, by_folder=True, after=f"{behind}~", past=behind)


# --- what asks the stores ---


# botocore parses each date of a page, which takes it several times as long as all the rest: names alone are left.
_OBJECT = re.compile(rb"<Contents>.*?(<Key>[^<]*</Key>).*?</Contents>", re.DOTALL)
_names_alone: ContextVar[bool] = ContextVar("names_alone", default=False)


def _leave_names(response_dict: dict[str, Any], **_: Any) -> None:
    """Take out of an answer what is not asked for; what else this client lists stays as it is."""
    if _names_alone.get():
        response_dict["body"] = _OBJECT.sub(rb"<Contents>\1</Contents>", response_dict["body"])


def s3_names(filesystem: Any, path: str, after: str | None = None) -> Iterator[str]:
    """Yield the paths of the objects below a folder of s3fs's file system, behind `after`."""

    def ask(prefix: str, by_folder: bool, behind: str, token: str | None) -> Page:
        asked: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, **filesystem.req_kw}
        asked |= {"Delimiter": "/"} if by_folder else {}
        asked |= {"ContinuationToken": token} if token else {"StartAfter": behind} if behind else {}
        page = copy_context().run(listed, asked)
        names = [entry["Key"] for entry in page.get("Contents", ())]
        folders = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
        return Page(names, folders, page["NextContinuationToken"] if page.get("IsTruncated") else None)

    async def watch() -> None:
        await filesystem.set_session()
        events = (await filesystem.get_s3(bucket)).meta.events
        events.register("before-parse.s3.ListObjectsV2", _leave_names, unique_id="sess-ray")

    def listed(asked: dict[str, Any]) -> Any:
        _names_alone.set(True)
        return patiently(filesystem.call_s3, "list_objects_v2", **asked)

    bucket, prefix, behind = _asked(path, after)
    fsspec.asyn.sync(filesystem.loop, watch)
    return (f"{bucket}/{name}" for name in names_in(ask, prefix, behind))


def gcs_names(filesystem: Any, path: str, after: str | None = None) -> Iterator[str]:
    """Yield the paths of the objects below a folder of gcsfs's file system, behind `after`."""

    def ask(prefix: str, by_folder: bool, behind: str, token: str | None) -> Page:
        asked: dict[str, Any] = {"prefix": prefix, "maxResults": 1000, "pageToken": token}
        asked |= {"delimiter": "/"} if by_folder else {}
        asked |= {"startOffset": behind} if behind else {}
        page = patiently(filesystem.call, "GET", "b/{}/o", bucket, json_out=True, **asked)
        names = [entry["name"] for entry in page.get("items", ())]
        return Page(names, page.get("prefixes", []), page.get("nextPageToken"))

    bucket, prefix, behind = _asked(path, after)
    return (f"{bucket}/{name}" for name in names_in(ask, prefix, behind))


def _asked(path: str, after: str | None) -> tuple[str, str, str]:
    """Return a bucket, what the names in it begin with, and the name behind which they are wanted."""
    bucket, _, prefix = path.partition("/")
    return bucket, f"{prefix}/" if prefix else "", (after or "").removeprefix(f"{bucket}/")
