"""Which source files make a map: those that a resumed run must find unchanged.

Pictures, commands, estimates and evaluations do not change a map, and a method does not change the maps of another. So
the imports are followed from where a map is made: the engine, the loading of models, the decoding and quantising of
pixels, and the module of the method.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import sess_ray

PACKAGE = Path(sess_ray.__file__).parent
MAKERS = (
    "sess_ray.engine.sess",
    "sess_ray.methods.registry",
    "sess_ray.models.load",
    "sess_ray.io.decode",
    "sess_ray.io.maps",
)
# Not followed: the first draws explanations, the second lists all methods, of which a run uses one, and how bytes are
# fetched is nothing to a map.
APART = ("sess_ray.pictures", "sess_ray.methods", "sess_ray.access", "sess_ray.signing", "sess_ray.small")


@cache
def code_sha256(*modules: str, package: Path = PACKAGE) -> str:
    """Return the sha256 over the names and sources of all files that make a map.

    Parameters
    ----------
    *modules : str
        Modules that make maps besides `MAKERS`: that of the method, in the package or the user's own. Of the user's
        own only what it imports of this package counts.
    package : Path
        Folder of the package.
    """
    found = hashlib.sha256()
    for file in sorted(reached((*MAKERS, *modules), package)):
        found.update(f"{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def module_sha256(name: str) -> str:
    """Return the sha256 of the source of a module of the user's own; ``unknown`` where it has none."""
    file = _own_file(name)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else "unknown"


def reached(modules: Iterable[str], package: Path = PACKAGE) -> set[Path]:
    """Return the files of a package that some modules are in or import, and what those import in turn."""
    files: set[Path] = set()
    seen: set[str] = set()
    left = list(modules)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        ours = _file(name, package)
        file = ours or (None if name.partition(".")[0] == package.name else _own_file(name))
        if file is None:
            continue
        if ours:
            files.add(ours)
        left += [found for found in _imported(file, name, package) if not _is_apart(found)]
    return files


def _is_apart(name: str) -> bool:
    return name in APART or name.startswith(f"{APART[0]}.")


def _imported(file: Path, name: str, package: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, wherever in it; not what only a type checker imports."""
    parent = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in _nodes(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (entry.name for entry in node.names if entry.name.partition(".")[0] == package.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = parent.split(".")[: len(parent.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            if base.partition(".")[0] == package.name:
                submodules = [f"{base}.{entry.name}" for entry in node.names]
                yield from (found for found in submodules if _file(found, package))
                if base != package.name:
                    yield base


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes(node)


def _file(name: str, package: Path) -> Path | None:
    """Return the file of a module of the package."""
    top, *parts = name.split(".")
    if top != package.name:
        return None
    place = package.joinpath(*parts)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _own_file(name: str) -> Path | None:
    try:
        file = inspect.getsourcefile(importlib.import_module(name))
    except (ImportError, TypeError):  # of a notebook, or built in
        return None
    return Path(file) if file and Path(file).is_file() else None
