"""The house as docs/architecture.md draws it: which level imports which, how large rooms are, and how they speak."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sess_ray"
FILES = sorted(path for folder in ("sess_ray", "jobs", "studies", "tests") for path in (ROOT / folder).rglob("*.py"))
SOURCES = [path for path in FILES if path.is_relative_to(PACKAGE)]

# From the roof down: a module imports what is on its own level or on one below.
LEVELS = [
    {"cli", "benchmark", "__main__"},
    {"pipeline", "data"},
    {"labels", "refinement", "runs", "training", "demo"},
    {"io", "engine", "metrics", "pictures"},
    {"methods"},
    {"models"},
    {
        "windows",
        "resampling",
        "blur",
        "boxes",
        "tables",
        "errors",
        "own",
        "precision",
        "products",
        "access",
        "signing",
        "small",
        "transfer",
        "opening",
    },
]
LEVEL = {room: len(LEVELS) - place for place, level in enumerate(LEVELS) for room in level}


def name_of(path):
    """Return the dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in SOURCES}


@cache
def tree(path):
    try:
        return ast.parse(path.read_text())
    except SystemError:  # CPython 3.11, where another thread parses at the same time
        return ast.parse(path.read_text())


def later(node):
    """Say whether the import of a module leaves a part of it for later: a function, or what only types need."""
    types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    return types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def imports(path, *, at_once):
    """Yield the full names that a module imports; with `at_once` those alone that its own import brings along."""
    pending = [tree(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (at_once and later(node)):
            pending += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]


def ours(names):
    """Return the modules of ours that imported names mean, packages on the way left out."""
    found = set()
    for name in names:
        while name and name not in MODULES:
            name = name.rpartition(".")[0]  # noqa: PLW2901 - an object of a module
        found.add(name)
    return found - {"", "sess_ray"}


def room(module):
    return module.split(".")[1]


def places(found):
    return [f"{path.relative_to(ROOT)}: {what}" for path, what in found]


def test_every_room_has_a_level():
    assert {room(name) for name in MODULES if name != "sess_ray"} - set(LEVEL) == set()


def test_imports_go_down():
    """Also those in functions: what a module needs later is below it, too."""
    up = [
        f"{name} imports {other}, which is on a higher level"
        for name, path in MODULES.items()
        for other in ours(imports(path, at_once=False))
        if name != "sess_ray" and LEVEL[room(other)] > LEVEL[room(name)]
    ]
    assert not up


def test_only_the_pipeline_and_what_is_above_it_imports_ray():
    below = [name for name in MODULES if name == "sess_ray" or LEVEL[room(name)] < LEVEL["pipeline"]]
    assert len(below) > 50
    assert not [name for name in below for one in imports(MODULES[name], at_once=False) if one.split(".")[0] == "ray"]


def test_no_modules_import_one_another_in_a_circle():
    """Among what is imported at once; a package's own __init__ may gather what its modules define."""
    edges = {name: ours(imports(path, at_once=True)) - {name} for name, path in MODULES.items()}
    done, way = set(), []

    def visit(name):
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name in done:
            return
        way.append(name)
        for other in sorted(edges[name]):
            visit(other)
        done.add(way.pop())

    for name in sorted(edges):
        visit(name)


def test_the_package_is_imported_without_ray_and_torch():
    asked = "import sys, sess_ray; print(sorted({'ray', 'torch', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_no_file_is_too_long_to_be_read():
    lengths = [(path, len(path.read_text().splitlines())) for path in FILES]
    assert not places((path, length) for path, length in lengths if length > 350)


def test_no_test_imports_from_another():
    """What several share lies in a plain module beside them: a test file may be split, and its names go."""
    files = [path for path in FILES if path.is_relative_to(ROOT / "tests") and path.name.startswith("test_")]
    found = [(path, name) for path in files for name in imports(path, at_once=False)]
    assert not places((path, name) for path, name in found if name.startswith("tests.") and ".test_" in name)


def test_docstrings_have_subjects():
    """And so do the parameters in them."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [(path, node) for path in FILES for node in ast.walk(tree(path)) if isinstance(node, kinds)]
    lines = [(path, line.strip()) for path, node in nodes for line in (ast.get_docstring(node) or "").splitlines()]
    assert not places((path, line) for path, line in lines if line.startswith("Of "))


def test_words_are_written_as_the_field_writes_them():
    pages = [*FILES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    lines = [(path, line.strip()) for path in pages for line in path.read_text().splitlines() if "can not" in line]
    assert not places((path, line) for path, line in lines if path != Path(__file__))


def test_no_class_is_too_long_to_be_held_in_mind():
    found = [(path, node) for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assert len(found) > 100
    assert not places((path, node.name) for path, node in found if node.end_lineno - node.lineno >= 200)
