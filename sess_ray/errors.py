"""The exceptions that sess-ray raises on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sess_ray.opening import readable


class SessError(ValueError):
    r"""Something the caller can put right; the message is one line that says how, whatever names it contains.

    >>> str(SessError("no such file: a\nb"))
    'no such file: a b'
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(readable(" ".join(message.splitlines())))


class RunError(RuntimeError):
    """A failure that ended a run; the message is one line."""


def unknown(kind: str, given: object, choices: Iterable[str], more: str = "") -> SessError:
    """Return the error for a name that is not among `choices`; it names the nearest ones (or all, if there are few)."""
    names = sorted(choices)
    plain = {name.lower(): name for name in names}  # capitals are the most frequent mistake
    near = [plain[name] for name in difflib.get_close_matches(str(given).lower(), plain, n=3)]
    if len(names) <= 20:
        hint = f"choose one of: {', '.join(names)}"
    elif near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"there are {len(names)}, for example {', '.join(names[:3])}"
    return SessError(f"unknown {kind} {str(given)!r}: {hint}{more}")
