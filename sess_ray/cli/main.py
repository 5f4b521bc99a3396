"""The console script ``sess-ray``, and what ``jobs/*.py`` call."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from sess_ray import __version__
from sess_ray.cli import command
from sess_ray.errors import unknown

COMMANDS = {  # each a module of `sess_ray.cli`
    "list": "write any input as a Parquet manifest, for runs over any number of images",
    "explain": "make saliency maps of every image of a dataset, as Parquet",
    "evaluate": "measure maps by the field's metrics, and compare runs",
    "gallery": "make web pages: runs side by side, or every window of one image",
    "labels": "make boxes and masks from maps, in the formats of COCO and Pascal VOC",
    "export": "copy a run and its images into FiftyOne, Hugging Face or WebDataset",
    "sweep": "explain and evaluate every combination of some settings",
    "sanity": "check that maps change with the model's weights, and with the class",
    "benchmark": "measure the speed of the engine and of the whole job",
}


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a command with its arguments; return its exit code."""
    module = import_module(f"sess_ray.cli.{name}")
    return command.run(module.app, arguments, getattr(module, "INTERRUPTED", "stopped"))


def main(name: str | None = None) -> NoReturn:
    """Run the command that is named, here or by the first argument, with the others; end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has no such letter ends no run
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    if name is None:
        name, arguments = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("--help", "-h"):
        print(_help())
        command.leave(0)
    if name == "--version":
        print(__version__)
        command.leave(0)
    if name not in COMMANDS:
        print(f"error: {unknown('command', name, COMMANDS)} (see --help)", file=sys.stderr)
        command.leave(command.WRONG_USAGE)
    command.leave(run(name, arguments))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        ["Usage: sess-ray COMMAND [OPTIONS]", "", *lines, "", "sess-ray COMMAND --help shows its options."]
    )
