"""What the command lines share: exit codes, errors in one line, KEY=VALUE."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args

import cyclopts
import psutil
from cyclopts import App, CycloptsError, Parameter, Token
from tqdm import tqdm

from sess_ray.access import one_line, public_text
from sess_ray.cli.config_file import config_of
from sess_ray.cli.wrong import reason, told
from sess_ray.errors import RunError, SessError, unknown
from sess_ray.opening import readable
from sess_ray.pipeline.cluster.flags import GROUPS, OTHER
from sess_ray.pipeline.cluster.settings import key_values

if TYPE_CHECKING:
    import numpy as np

    from sess_ray.io.items import Item

FAILED, WRONG_USAGE, SIGNALLED = 1, 2, 128
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SWITCH = {"on": "true", "off": "false"}  # as YAML has them, beside yes and no
UNKNOWN = re.compile(r", \? \w+/s|, \? left")  # of a bar that has only begun
LINE_SECONDS = 30.0  # between two lines that tell how far a job is, in a log

# Of a command's function: `run` has read the file before the function is called.
ConfigFile = Annotated[str | None, Parameter(name="--config", help="A YAML file of these settings; flags win."), OTHER]


def command(name: str, text: str | None) -> App:
    """Return a command line with one command; `run` runs it."""
    app = App(
        name=name,
        help=text,
        version_flags=[],
        default_parameter=Parameter(negative_iterable=(), show_default=_default, converter=_converted),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = GROUPS["Other"]
    return app


def run(app: App, arguments: Sequence[str], interrupted: str = "stopped") -> int:
    """Run a command line; return its exit code.

    Parameters
    ----------
    app : App
        Its command returns an exit code. ``--config FILE.yaml`` is read for any command.
    arguments : sequence of str
    interrupted : str
        What to say after Ctrl-C, or after SIGTERM, which a cluster sends before it takes a machine away.

    Returns
    -------
    int
        What the command says, 1 if the run failed, 2 for wrong usage, 130 after Ctrl-C and 143 after SIGTERM; all but
        the first say why in a line.
    """
    arguments = [readable(argument) for argument in arguments]
    try:
        with stoppable():
            app.config = config_of(arguments)
            result: int | None = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _failed(told(error), WRONG_USAGE)
    except SessError as error:
        return _failed(str(error), WRONG_USAGE)
    except Stopped as stopped:
        print(f"\n{interrupted}", file=sys.stderr)
        return SIGNALLED + stopped.signal
    except Exception as error:
        if "Ray" not in type(error).__name__ and not isinstance(error, RunError):
            raise
        return _failed(f"the run failed: {reason(error)}", FAILED)
    return result or 0


def _converted(kind: Any, tokens: Sequence[Token]) -> Any:
    """Return what the tokens of a flag mean; no fraction is rounded to a number of things."""
    if {int, float} & set(_kinds(kind)) == {int}:
        for token in tokens:
            if token.value.partition(".")[2].strip("0"):
                raise cyclopts.CoercionError(token=token, target_type=int)
    if bool in _kinds(kind):
        tokens = [token.evolve(value=SWITCH.get(token.value.lower(), token.value)) for token in tokens]
    return cyclopts.convert(kind, tokens)


def _kinds(kind: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of."""
    inner = get_args(kind)
    if not inner:
        yield kind
    for one in inner:
        yield from _kinds(one)


def _default(value: object) -> str | None:
    """Return what --help says of a default, as it would be given; nothing where it is off, or there is none."""
    if value is None or value is False or value == ():
        return None
    if value is True:
        return "yes"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Stopped(Exception):  # noqa: N818 - no error
    """A signal has asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.signal = number


_signals: list[int] = []  # that this process has got


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` for SIGINT and SIGTERM, whatever a library makes of the exception that they raise inside it."""

    def stop(number: int, _: object) -> None:
        _signals.append(number)
        raise KeyboardInterrupt

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        # A signal may come inside a callback whose exceptions Python prints, and forgets: it is noted all the same.
        if not (_signals and isinstance(found.exc_value, KeyboardInterrupt)):
            told_before(found)

    told_before, sys.unraisablehook = sys.unraisablehook, unraisable
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
        stop_if_asked()
    except BaseException:
        stop_if_asked()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = told_before
        _signals.clear()


def stop_if_asked() -> None:
    """Raise `Stopped` if a signal has come: a library may have swallowed the exception. For loops that take long."""
    if _signals:
        raise Stopped(_signals[0]) from None


class Lines:
    """A stream for a bar of tqdm's where nobody watches: whole lines, without the controls that move a cursor.

    A line that counts no more than the one before is left out: tqdm says its last one twice.
    """

    def __init__(self) -> None:
        self._last = ""

    def write(self, text: str) -> None:
        line = UNKNOWN.sub("", text.replace("\r", "").strip())
        count = line.partition(", ")[0]
        if line and count != self._last:
            self._last = count
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def bar(unit: str, total: int | None = None, speed: str = ", {rate_noinv_fmt}, {remaining} left") -> tqdm[NoReturn]:
    """Return a line that tells how far a job is; where nobody watches, one after the other, now and then.

    Parameters
    ----------
    unit : str
        What is counted.
    total : int, optional
        How many there are.
    speed : str
        How fast it goes, in tqdm's words; empty where the caller says it (``set_postfix_str``).
    """
    watched = sys.stderr.isatty()
    count = f"{{n_fmt}}/{{total_fmt}} {unit}s" if total is not None else f"{{n_fmt}} {unit}s"
    speed = speed if total is not None else speed.replace(", {remaining} left", "")
    picture = "{percentage:3.0f}%|{bar:20}| " if watched and total else ""
    return tqdm(
        total=total,
        unit=f" {unit}s",
        bar_format=f"{picture}{count}, {{elapsed}}{speed}{{postfix}}",
        dynamic_ncols=watched,
        mininterval=0.2 if watched else LINE_SECONDS,
        miniters=1,  # else tqdm waits for as many as came in the last interval
        file=sys.stderr if watched else Lines(),
        disable=total == 0,  # of nothing there is nothing to tell
    )


@contextmanager
def progress(unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Give a function to call with what has been done since the last call; it raises `Stopped` after a signal."""
    with bar(unit, total) as line:

        def update(done: int) -> None:
            stop_if_asked()
            line.update(done)

        yield update


def decodable(items: Iterable[Item], max_pixels: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the ids and pixels, (H, W, 3) uint8, of images; say on stderr which are left out, and why."""
    from sess_ray.io.decode import decode
    from sess_ray.io.reading import read_items

    for item in items:
        [content] = read_items([item.uri])
        try:
            if isinstance(content, Exception):
                raise content
            pixels = decode(content, max_pixels)
        except Exception as error:
            print(f"left out: {item.image_id}: {one_line(error)}", file=sys.stderr)
            continue
        yield item.image_id, pixels


def leave(code: int) -> NoReturn:
    """End the process at once, with all that it has started: Ray's own farewell takes seconds, or comes too early.

    Nothing is lost by that: what is written is whole. A cluster that this process has not started is told good-bye,
    unless the run failed or was stopped: then it sees that its driver is gone.
    """
    children = psutil.Process().children(recursive=True)
    if code or children:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _failed(message: str, code: int) -> int:
    print(f"error: {public_text(message)}", file=sys.stderr)
    return code


def options_of(method: str, given: Iterable[str], methods: Collection[str]) -> dict[str, str]:
    """Return the options of one method: ``key=value``, which is for all, and ``METHOD.key=value``, for one of several.

    Examples
    --------
    >>> options_of("rise", ["rise.masks=500", "sscam.samples=2"], methods=["rise", "sscam"])
    {'masks': '500'}
    """
    options = {}
    for key, value in key_values(given, "--method-option").items():
        owner, _, name = key.rpartition(".")
        if owner and owner not in methods:
            raise unknown("method of --method-option", owner, methods)
        if owner in ("", method):
            options[name] = value
    return options


def given_flags(config: Any, names: Iterable[str]) -> list[str]:
    """Return the flags of settings that are not left at their defaults.

    Parameters
    ----------
    config : dataclass
    names : iterable of str
        Those of its fields that are asked for.
    """
    defaults = {field.name: field.default for field in fields(config)}
    return [f"--{name.replace('_', '-')}" for name in names if getattr(config, name) != defaults[name]]


def refuse_unused(config: Any, names: Iterable[str], command: str) -> None:
    """Raise `SessError` where settings that a command has no use for are not as they are by default.

    Parameters
    ----------
    config : dataclass
    names : iterable of str
        Its fields that have no effect.
    command : str
    """
    flags = given_flags(config, names)
    if flags:
        raise SessError(f"{command} has no use for {', '.join(flags)}: leave {'it' if len(flags) == 1 else 'them'} out")


def counted(number: int, unit: str) -> str:
    """Return a number of things.

    >>> counted(1, "image"), counted(2000, "tar shard"), counted(0, "error")
    ('1 image', '2,000 tar shards', '0 errors')
    """
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
