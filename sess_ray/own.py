"""Models and methods of the user's own, named as package.module:function."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from sess_ray.errors import SessError


def imported(kind: str, spec: str) -> Any:
    """Return what ``package.module:name`` names; the working folder is searched too.

    Raises
    ------
    SessError
        If there is no such module, or nothing of that name in it.
    """
    module_name, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module_name), name)
    except SessError:
        raise
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise SessError(f"{kind} {spec!r}: {error}") from error
    except (Exception, SystemExit) as error:  # as argparse leaves
        raise SessError(f"{kind} {spec!r} failed with {type(error).__name__}: {error}".split("\n")[0]) from error
