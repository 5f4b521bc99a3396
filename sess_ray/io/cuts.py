"""How an input is cut into spans: what an output of them, and who joins its files, has to know of it.

A large manifest is cut by place: `sess_ray.io.spans`. Tar shards are spans as they are: what is in one shows when it is
read, so a span and its rows are numbered by checksums of names, which say nothing of the order and stay the same where
other shards come and go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from sess_ray.io.checksums import checksums
from sess_ray.io.pieces import Whole

NUMBERS = 2**60  # positive where Arrow and NumPy hold them


class Cut(Protocol):
    """An input that is cut into spans."""

    def told(self) -> dict[str, Any]:
        """Return what an output says of them: another run goes on with them only if it finds the same."""

    def has(self, span: int, /) -> bool:
        """Say whether there may be a span of this number."""

    def whole(self, span: int, /) -> Whole | None:
        """Return what all rows of a span add up to; None where its files alone may say it."""

    def numbers(self, span: int, ids: Iterable[str], /) -> dict[str, list[int]]:
        """Return the rows of images by their ids, in the order in which images of a span are stored.

        Parameters
        ----------
        span : int
        ids : iterable of str
            Those that are asked for; the others of the span may be among what is returned.
        """


@dataclass(frozen=True)
class Shards:
    """Tar shards, each of which is a span."""

    def told(self) -> dict[str, Any]:
        return {"of": "tar shards"}

    def has(self, _: int, /) -> bool:
        return True

    def whole(self, _: int, /) -> Whole | None:
        return None

    def numbers(self, _: int, ids: Iterable[str], /) -> dict[str, list[int]]:
        ordered = sorted(set(ids))
        return {name: [number] for name, number in zip(ordered, numbers_of(ordered), strict=True)}


def numbers_of(names: Iterable[str]) -> list[int]:
    """Return the number of each name of a shard, as a span, or of an image, as a row."""
    found: list[int] = (checksums(names) % NUMBERS).tolist()
    return found
