"""Ctrl-C, wherever it comes."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from sess_ray.cli.command import Stopped, stoppable


class Last:
    """Gets a signal where Python prints what is raised, and forgets it: as callbacks of its imports do."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


class Broken:
    def __del__(self):
        raise RuntimeError("odd")


def test_a_signal_inside_a_callback_of_pythons_is_no_traceback(capfd):
    before = sys.unraisablehook
    with pytest.raises(Stopped), stoppable():
        Last()
    assert capfd.readouterr().err == ""
    assert sys.unraisablehook is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_else_fails_there_is_still_seen(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: seen.append(str(found.exc_value)))
    with stoppable():
        Broken()
    assert seen == ["odd"]
