"""What the explain command says of a run: while it goes on, and what may be done with its output in the end."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sess_ray.access import public, public_option
from sess_ray.cli import command

if TYPE_CHECKING:
    from sess_ray.pipeline.explain.config import ExplainConfig
    from sess_ray.pipeline.explain.prepare import Job
    from sess_ray.pipeline.explain.record import Summary

# Settings that say nothing of an explanation without SESS, and without guided windows.
OF_SESS = ("step_size", "pre_filter_ratio", "fade", "windows", "whole_scales", "window_share")
OF_GUIDED = ("whole_scales", "window_share")
# What the output may be given to: the word before the line, the command, its extra, and the name of its output.
NEXT = (
    ("look", "gallery", None, "gallery"),
    ("evaluate", "evaluate", "evaluate", "evaluation"),
    ("export", "export", None, "dataset"),
)


def ineffective(config: ExplainConfig) -> list[str]:
    """Return a line on each setting that changes nothing beside the others.

    Examples
    --------
    >>> from sess_ray.pipeline.explain.config import ExplainConfig
    >>> ineffective(ExplainConfig(num_scales=0, fade=0.1, windows="guided"))
    ['--fade and --windows have no effect without SESS (--num-scales 0)']
    >>> ineffective(ExplainConfig(whole_scales=2))
    ['--whole-scales has no effect without --windows guided']
    """
    lines = []
    if not config.num_scales:
        lines.append(("SESS (--num-scales 0)", command.given_flags(config, OF_SESS)))
    elif config.windows == "all":
        lines.append(("--windows guided", command.given_flags(config, OF_GUIDED)))
    elif config.num_scales <= config.whole_scales:
        finer = f"more scales than --whole-scales {config.whole_scales}"
        lines.append((finer, ["--windows", *command.given_flags(config, ["window_share"])]))
    if config.annotations is None:
        lines.append(("--annotations", command.given_flags(config, ["several_classes"])))
    return [
        f"{' and '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect without {missing}"
        for missing, flags in lines
        if flags
    ]


class Progress:
    """A line that tells how far a run is."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._bar = command.bar("image", total, speed="")

    def __call__(self, summary: Summary) -> None:
        command.stop_if_asked()
        self._bar.set_postfix_str(speed_of(summary, self._total), refresh=False)
        self._bar.update(summary.done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def speed_of(summary: Summary, total: int | None) -> str:
    """Return how fast a run is, when it will be done, and what it does.

    Parameters
    ----------
    summary : Summary
    total : int or None
        Images to explain; None where nobody knows.
    """
    said = [f"{summary.rate:.3g} images/s"]
    if total is not None and summary.rate and summary.done < total:
        said.append(f"{duration((total - summary.done) / summary.rate)} left")
    if summary.busy is not None:
        said.append(f"{command.counted(summary.actors, 'actor')} {summary.busy:.0%} busy")
    if summary.seconds:
        windows = summary.windows / summary.seconds
        said.append(f"{windows:.0f} windows/s" if windows >= 1 else f"{windows:.1g} windows/s")
    if summary.patches:
        said.append(f"{summary.kept / summary.patches:.0%} kept")
    return ", ".join([*said, errors_of(summary)])


def errors_of(summary: Summary) -> str:
    """Return the number of errors, and how many of them are of which stage."""
    stages = ", ".join(f"{stage}: {count:,}" for stage, count in summary.failed.most_common())
    return command.counted(summary.errors, "error") + (f" ({stages})" if stages else "")


def duration(seconds: float) -> str:
    """Return how long something takes, in the unit that a person would use.

    Examples
    --------
    >>> duration(19.04), duration(250), duration(40_000), duration(1e6)
    ('19 s', '4.2 minutes', '11 hours', '12 days')
    """
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.2g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def size(number: int) -> str:
    """Return a number of bytes, in the unit that a person would use.

    Examples
    --------
    >>> size(820), size(5_400), size(1_234_567), size(2_500_000_000_000)
    ('820 bytes', '5.4 kB', '1.2 MB', '2.5 TB')
    """
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number} bytes"


def next_steps(job: Job, program: str, environment: Mapping[str, str]) -> list[str]:
    """Return the commands that look at an output, evaluate it and export it, to be pasted into a shell.

    Parameters
    ----------
    job : Job
    program : str
        What this process was started as, ``sys.argv[0]``.
    environment : mapping
        The variables of this process.
    """
    config, url = job.config, public(job.store.url)
    shared = [f"--storage-option={public_option(entry)}" for entry in config.storage_option]
    shared += ["--address", config.address] if config.address else []
    annotated = [
        word
        for flag, value in (("--annotations", config.annotations), ("--class-map", config.class_map))
        if value is not None and config.annotations is not None
        for word in (flag, public(value))
    ]
    lines = []
    for what, name, extra, output in NEXT:
        run = url if name == "export" else f"sess={url}"
        given = [name, "--run", run, *(annotated if name == "evaluate" else ())]
        words = [*_started_as(program, environment, extra), *given, "--output", job.store.path(output), *shared]
        lines.append(f"{what + ':':<9} {shlex.join(words)}")
    return lines


def _started_as(program: str, environment: Mapping[str, str], extra: str | None) -> list[str]:
    """Return how a person starts our commands where this one was started so."""
    if "UV_RUN_RECURSION_DEPTH" in environment:  # what is found here is found nowhere behind `uv run`
        return ["uv", "run", *(["--extra", extra] if extra else []), "sess-ray"]
    if shutil.which("sess-ray", path=environment.get("PATH", "")):
        return ["sess-ray"]
    if os.path.basename(program) == "sess-ray":
        return [program]
    return [sys.executable, "-m", "sess_ray"]
