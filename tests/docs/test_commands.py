"""Every command in README.md and docs/ is there, and takes the flags that are named beside it."""

from __future__ import annotations

import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from sess_ray.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
JOBS = {path.name: re.search(r'main\("(\w+)"\)', path.read_text())[1] for path in (ROOT / "jobs").glob("*.py")}
BLOCK = re.compile(r"^ *```(?:\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
START = re.compile(r"(?:sess-ray|python -m sess_ray|(?:python |uv run )?jobs/(?P<job>\w+\.py))(?: (?P<rest>[^`|;]*))?")
# Flags that pages name of other programs.
OTHERS = {"--faults", "--where", "--working-dir", "--follow", "--num-gpus", "--extra", "--yes"}


@cache
def flags(name):
    """Return the flags of a command, as its --help has them."""
    found = set()
    for one in importlib.import_module(f"sess_ray.cli.{name}").app.assemble_argument_collection():
        found.update(one.names)
        found.update(one.negatives)
    return found | {"--help", "-h"}


def commands(text):
    """Yield (command, arguments) of what a page shows or names: in blocks and in `code`."""
    code = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    code += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    for line in code:
        for found in START.finditer(line):
            if found["job"]:
                yield JOBS.get(found["job"], found["job"]), found["rest"] or ""
            else:
                name, _, rest = (found["rest"] or "").partition(" ")
                if re.fullmatch(r"[a-z]+", name):
                    yield name, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_are_there_and_take_their_flags(page):
    for name, rest in commands(page.read_text()):
        assert name in main.COMMANDS, f"{page.name}: no command {name}"
        try:
            words = shlex.split(rest, comments=True)
        except ValueError:
            words = rest.split()
        given = {word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2}
        assert not given - flags(name), f"{page.name}: {name} {rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_flags_in_prose_are_of_some_command(page):
    known = OTHERS.union(*(flags(name) for name in main.COMMANDS))
    prose = BLOCK.sub("", page.read_text())
    named = {flag for code in re.findall(r"`(--[a-z][\w-]*)", prose) for flag in [code]}
    assert not named - known


def test_the_pages_name_every_command():
    """And so the tests above look at something."""
    named = {name for page in PAGES for name, _ in commands(page.read_text())}
    assert named == set(main.COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
