"""What the command lines share: exit codes, errors in one line, KEY=VALUE."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from cyclopts import App, CycloptsError
from cyclopts.config import Yaml

from sess_ray.errors import SessError

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


def command(name: str, text: str | None) -> App:
    """Return a command line with one command; `run` runs it."""
    return App(
        name=name,
        help=text,
        version_flags=[],
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )


def run(app: App, arguments: Sequence[str], interrupted: str = "stopped") -> int:
    """Run a command line; return its exit code.

    Parameters
    ----------
    app : App
        Its command returns an exit code. ``--config FILE.yaml`` is read for any command.
    arguments : sequence of str
    interrupted : str
        What to say after Ctrl-C.

    Returns
    -------
    int
        What the command says, 1 if Ray failed, 2 for wrong usage, 130 after Ctrl-C; the last three say why in a line.
    """
    try:
        if "--config" in arguments[:-1]:
            path = arguments[arguments.index("--config") + 1]
            app.config = (Yaml(path, must_exist=True, allow_unknown=False, search_parents=False),)
        result: int | None = app(arguments, exit_on_error=False, print_error=False)
    except (CycloptsError, FileNotFoundError) as error:
        return _failed(f"{error} (see --help)", WRONG_USAGE)
    except SessError as error:
        return _failed(str(error), WRONG_USAGE)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if "Ray" not in type(error).__name__:
            raise
        return _failed(f"the run failed: {str(error).strip().splitlines()[-1]}", FAILED)
    return result or 0


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def key_values(given: Iterable[str], flag: str) -> dict[str, str]:
    """Return what the values of a flag, each ``key=value``, say.

    Examples
    --------
    >>> key_values(["samples=4", " std = 0.1"], "--method-option")
    {'samples': '4', 'std': '0.1'}
    """
    pairs = [entry.partition("=") for entry in given]
    for key, sign, value in pairs:
        if not sign:
            raise SessError(f"{flag} {key}{sign}{value}: use key=value")
    return {key.strip(): value.strip() for key, _, value in pairs}


def options_of(method: str, given: Iterable[str]) -> dict[str, str]:
    """Return the options of one method from ``METHOD.key=value`` of several.

    Examples
    --------
    >>> options_of("rise", ["rise.masks=500", "xrai.steps=10"])
    {'masks': '500'}
    """
    every = key_values(given, "--method-option")
    return {key.removeprefix(f"{method}."): value for key, value in every.items() if key.startswith(f"{method}.")}
