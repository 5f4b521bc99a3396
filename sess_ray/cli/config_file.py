"""``--config FILE.yaml``: settings out of a file, refused where one of them is not a setting."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import yaml
from cyclopts.config import Dict

from sess_ray.errors import SessError

FLAG = "--config"


NULL = "tag:yaml.org,2002:null"


class _Loader(yaml.SafeLoader):
    """Takes values as they are written, so that they mean what they mean on a command line.

    To YAML ``no`` is false, ``010`` eight and ``1:30`` ninety. Only null is still nothing: a setting left to its
    default. Refused is a key that is there twice, of which YAML itself would take the last, and one without a value.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise SessError(f"{key!r} is there twice")
        for key, (_, value) in zip(keys, node.value, strict=True):
            if value.tag == NULL and not value.value:
                raise SessError(f"{key!r} has no value: give it one, leave it out, or write null")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == NULL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def config_of(arguments: Sequence[str]) -> tuple[Dict, ...]:
    """Return the settings of the file that the arguments of a command name, as cyclopts takes them.

    Parameters
    ----------
    arguments : sequence of str
        With ``--config FILE`` or ``--config=FILE``, or without.

    Raises
    ------
    SessError
        If there is no such file, if it is no YAML of settings, or if two files are named.
    """
    files = list(_named(arguments))
    if len(files) > 1:
        raise SessError(f"{FLAG} {files[0]} and {FLAG} {files[1]}: give one file")
    return tuple(
        Dict(_read(path), source=path, allow_unknown=False, use_commands_as_keys=False)  # type: ignore[call-arg]
        for path in files
    )


def _named(arguments: Sequence[str]) -> Iterator[str]:
    for place, argument in enumerate(arguments):
        flag, sign, value = argument.partition("=")
        if flag == FLAG:
            yield value if sign else "".join(arguments[place + 1 : place + 2])


def _read(path: str) -> dict[str, Any]:
    if not path or path.startswith("--"):
        raise SessError(f"{FLAG} needs a YAML file")
    try:
        with open(path, encoding="utf-8-sig") as file:
            settings = yaml.load(file, _Loader)  # noqa: S506 - derived from SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError, SessError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        told = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else told
        raise SessError(f"cannot read {FLAG} {path}: {' '.join(told.split())}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(map(_is_name, settings)):
        raise SessError(f"{FLAG} {path} is no list of settings: use lines such as num_scales: 6")
    if "config" in settings:
        raise SessError(f"{FLAG} {path} names another file of settings: give one file")
    return settings


def _is_name(key: object) -> bool:
    return isinstance(key, str) and not key.strip().isdecimal()
