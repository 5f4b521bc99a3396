"""The job that lists an input into a manifest: in this process, part by part."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from sess_ray.access import public, use
from sess_ray.errors import SessError
from sess_ray.io.inputs import Listing, tables_of
from sess_ray.io.items import CHUNK, Item, distinct, split_uri
from sess_ray.io.manifest_writer import Manifest, Progress
from sess_ray.io.places import resolved
from sess_ray.pipeline.listing.config import ListConfig

PART = 6 * CHUNK  # images of a part: what is held of a list, and at most what is lost of it


@dataclass
class Job:
    """A list that has been checked and can start: `prepare` makes it, `run` runs it.

    Attributes
    ----------
    config : ListConfig
    manifest : Manifest
    progress : Progress
        How far it is.
    listing : Listing
        What is left of the input, or all of it.
    items : iterator of Item
        Those of the listing; the first is there already, so that what cannot be read is refused before a list begins.
    again : int
        Images at the beginning of the listing that are known already.
    """

    config: ListConfig
    manifest: Manifest
    progress: Progress
    listing: Listing
    items: Iterator[Item]
    again: int = 0


def prepare(config: ListConfig) -> Job:
    """Check everything that can be checked before anything is listed.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    use(config.access())
    if config.input is None:
        raise SessError("give an --input to list: a folder, a bucket, a glob, a table or an inventory")
    if resolved(config.input) == resolved(config.output):
        raise SessError(f"--output {public(config.output)} is the --input: give another name")
    manifest = Manifest(config.output)
    if manifest.exists and not config.overwrite:
        raise SessError(f"{public(config.output)} is there already: add --overwrite, or choose another --output")
    manifest.check_writable()
    asked = _asked(config)
    stopped = None if config.overwrite else manifest.progress()
    listing = Listing(config.input, None, None, config.image_column, config.label_column)
    if stopped is None or stopped.asked != asked:
        manifest.clear()
        return Job(config, manifest, Progress(asked), listing, _begun(listing))
    if stopped.whole:
        return Job(config, manifest, stopped, listing, iter(()))
    after = _after(listing, stopped)
    if after is not None:
        listing.after, listing.others = after, Counter(stopped.others)
    return Job(config, manifest, stopped, listing, _begun(listing), stopped.items if after is None else 0)


def _begun(listing: Listing) -> Iterator[Item]:
    items = iter(listing)
    return chain(list(islice(items, 1)), items)


def _asked(config: ListConfig) -> dict[str, Any]:
    """Return what says whether another list is the same."""
    assert config.input is not None
    return {
        "input": public(resolved(config.input)),
        "image_column": config.image_column,
        "label_column": config.label_column,
        "part": PART,
    }


def _after(listing: Listing, stopped: Progress) -> str | None:
    """Return the file behind which a list goes on without what is before it; None where it has to come again."""
    if stopped.last is None or not listing.goes_on:
        return None
    place, member = split_uri(stopped.last[1])
    return place.partition("://")[2] if member is None else None


def run(job: Job, done: Callable[[int], None] = lambda _: None) -> Progress:
    """List the input, and write the manifest.

    Parameters
    ----------
    job : Job
    done : callable
        Called with the number of images that were listed since the last call.

    Returns
    -------
    Progress
        What was listed.

    Raises
    ------
    SessError
        If the input holds no image, cannot be read, or has an id for two images.
    RunError
        If something cannot be written.
    """
    progress = job.progress
    done(progress.items)
    if not progress.whole:
        _pass_by(job)
        while _part(job, done):
            pass
    job.manifest.finish(progress)
    return progress


def _pass_by(job: Job) -> None:
    """Leave out what is listed already."""
    last = deque(islice(job.items, job.again), maxlen=1)
    if job.again and [[item.image_id, item.uri] for item in last] != [job.progress.last]:
        raise SessError(
            f"{public(job.config.input or '')} has changed since a list of it was stopped: --overwrite begins anew"
        )


def _part(job: Job, done: Callable[[int], None]) -> bool:
    """List a part; return whether there may be more."""
    assert job.config.input is not None
    last: list[str] = []

    def noted() -> Iterator[Item]:
        for item in islice(job.items, PART):
            last[:] = item.image_id, item.uri
            yield item

    tables = []
    for table in tables_of(noted()):
        tables.append(table)
        done(table.num_rows)
    progress = job.progress
    listed = sum(table.num_rows for table in tables)
    progress.whole = listed < PART
    progress.others = dict(job.listing.others)
    progress.names = [list(names) for names in job.listing.learned.names]
    if tables:
        images = distinct(pa.concat_tables(tables), job.config.input)
        progress.add(images, listed, last)
        job.manifest.add(images, progress)
    return not progress.whole
