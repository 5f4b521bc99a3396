"""Keeping from the screen what Ray's core says of Ray Data's own actors, and nobody can mend."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sess_ray.pipeline.cluster.embedded import replaced

# Ray Data gives its actors references and lets them be restarted, and Ray's core warns of that once in a process. What
# the references lead to stays as long as the Dataset. Ray has no switch for one line.
LINE = b"has constructor arguments in the object store and max_restarts > 0"
# Of each task of an actor that was ended, also by Ray itself when a run is stopped; that it goes on is no news.
RETRIED = "so the task will be retried"


def of_retries() -> None:
    """Keep from the screen, in this process, that Ray tries tasks again; of a Ray with other names, it is seen."""
    try:
        from ray._private import worker
    except ImportError:
        return
    tell = getattr(worker, "print_to_stdstream", None)
    if tell is None or tell.__module__ == __name__:  # once in a process
        return

    def told(data: dict[str, Any], *arguments: Any, **options: Any) -> None:
        lines = [line for line in data.get("lines", ()) if RETRIED not in str(line)]
        if lines:
            tell({**data, "lines": lines}, *arguments, **options)

    worker.print_to_stdstream = told


@contextmanager
def starting_actors() -> Iterator[None]:
    """Let Ray Data start actors without a word; of a Ray that has this under another name, the line is seen."""
    try:
        from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
    except ImportError:
        yield
        return
    start = getattr(ActorPoolMapOperator, "_start_actor", None)

    def quietly(*arguments: Any, **options: Any) -> Any:
        with without(LINE):
            return start(*arguments, **options)  # type: ignore[misc] # of a Ray without it, nothing is replaced

    with replaced(ActorPoolMapOperator, _start_actor=quietly):
        yield


@contextmanager
def without(text: bytes) -> Iterator[None]:
    """Keep lines with a text from stderr, whatever in this process writes them; the others come when it is over."""
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            written.seek(0)
            for line in written:
                if text not in line:
                    os.write(2, line)
