"""What is wrong with a command line, in the words of people who use it."""

from __future__ import annotations

import re
from types import NoneType
from typing import get_args

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    Token,
    UnknownOptionError,
    UnusedCliTokensError,
)

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "one value"}
# What Ray's retries add to an error, though none was asked for.
_ADVICE = re.compile(r"(?:\n|\\n)Failed to [^\n]*? after \d+/\d+ attempts \(total backoff .*", re.DOTALL)
_OWN = re.compile(r"(?:sess_ray\.errors\.)?(?:SessError|RunError|GoneError): ")
_IN_FILE = re.compile(r"\[([^\[\]]*)\]")


def told(error: CycloptsError) -> str:
    """Return one line that says which flag, or which setting of a file, is wrong, and what to do.

    Parameters
    ----------
    error : CycloptsError
        What the parser of flags raises.
    """
    return " ".join(f"{_plain(error)} (see --help)".split())


def reason(error: BaseException) -> str:
    r"""Return why a run has failed, in a line: the last of what Ray says, which is that of the error in a worker.

    Examples
    --------
    >>> reason(RuntimeError("Traceback\nOSError: disk full\nFailed to map after 1/1 attempts (total backoff 0.0s)."))
    'OSError: disk full'
    """
    lines = _ADVICE.sub("", f"\n{error}").strip().splitlines()
    return _OWN.sub("", lines[-1].strip(), count=1) if lines else type(error).__name__


def _plain(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(error.unused_tokens or ())
        return f"{words}: give each value after its flag, such as --input FOLDER"
    if isinstance(error, RepeatArgumentError):
        return f"{_named(error.token)} is given twice: give it once"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.keyword or error.argument.name} needs a value"
    if isinstance(error, UnknownOptionError) and error.token.source != "cli":
        _, _, near = str(error).partition("Did you mean ")
        hint = f": did you mean {near.lstrip('-').replace('-', '_')}" if near else ""
        return f"unknown setting {_named(error.token)}{hint}"
    if isinstance(error, CoercionError) and error.msg is None and error.token is not None:
        kinds = [KINDS[kind] for kind in (error.target_type, *get_args(error.target_type)) if kind in KINDS]
        if kinds and set(get_args(error.target_type)) <= {*KINDS, NoneType}:
            return f"{_named(error.token)}: {error.token.value!r} is not {' or '.join(kinds)}"
    return str(error)


def _named(token: Token) -> str:
    """Return a flag; or a setting, and the file that it stands in."""
    keyword = token.keyword or token.value
    parts = _IN_FILE.findall(keyword)
    return f"{'.'.join(parts)} in {token.source}" if parts and token.source != "cli" else keyword
