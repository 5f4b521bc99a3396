"""How a run ends: by Ctrl-C, wherever it comes, and by an error, without what nobody asked for."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from sess_ray.cli.command import Stopped, stoppable
from sess_ray.cli.wrong import reason

ADVICE = """Failed to run map task after 1/1 attempts (total backoff 0.0s).
To change retry attempts, backoff, or which errors are retried, configure `ray.data.DataContext.get_current()`."""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "RuntimeError"),
        ("task\nTraceback ...\nOSError: disk full", "OSError: disk full"),
        ("...\nsess_ray.errors.SessError: out/maps/x is damaged: remove it", "out/maps/x is damaged: remove it"),
        (f"...\nSessError: x is damaged\n{ADVICE}", "x is damaged"),
        (f"...\nKeyError: {KeyError(chr(10).join(['uri', ADVICE]))!s}", "KeyError: 'uri"),
    ],
)
def test_why_a_run_has_failed_is_its_own_error_without_rays_advice(said, told):
    assert reason(RuntimeError(said)) == told


class Last:
    """Gets a signal where Python prints what is raised, and forgets it: as callbacks of its imports do."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


class Broken:
    def __del__(self):
        raise RuntimeError("odd")


def test_a_signal_inside_a_callback_of_pythons_is_no_traceback(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)  # in place of what prints it
    before = sys.unraisablehook
    with pytest.raises(Stopped), stoppable():
        Last()
    assert seen == []
    assert sys.unraisablehook == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_else_fails_there_is_still_seen(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: seen.append(str(found.exc_value)))
    with stoppable():
        Broken()
    assert seen == ["odd"]
