"""Going on where another run has stopped: what is left to do, and whether it is the same run.

An output says in started.json what its maps are made with. Another run goes on there only with the same settings,
model and code; then the images whose ids it holds are left out, and that is all there is to it: rows are written
together with their ids, so no second record can disagree with them.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

import sess_ray
from sess_ray.errors import SessError
from sess_ray.io.access import public
from sess_ray.io.inputs import shard_rows
from sess_ray.io.ledger import Ledger
from sess_ray.io.store import STARTED, Store

if TYPE_CHECKING:
    from sess_ray.models import Model
    from sess_ray.pipeline.explain.config import ExplainConfig

# Settings that do not change what a map is: only where and how fast it is made, and how many.
FREE = frozenset(
    (
        *("output", "limit", "overwrite", "resume_anyway", "retry_errors", "dry_run", "max_errors", "overlays"),
        *("batch_size", "actors", "gpus_per_actor", "address", "max_pixels", "max_patches", "max_bytes"),
        *("storage_option", "read_timeout", "retry_seconds"),
    )
)
# Of these, what a map is does depend on the version.
PACKAGES = ("torch", "torchvision", "pillow")
_IN_SHARD = re.compile(r"(.*?\.tar)/(.*)", re.DOTALL | re.IGNORECASE)  # an image_id: the shard's, and the member


def settings(config: ExplainConfig) -> dict[str, Any]:
    """Return the settings that make a map what it is, without credentials."""
    return {name: value for name, value in config.public().items() if name not in FREE}


def made_with(config: ExplainConfig, model: Model) -> dict[str, str]:
    """Return what a map depends on besides the settings: the weights, our code and that of others."""
    own = [name.partition(":")[0] for name in (config.method, config.model) if ":" in name]
    return {
        "weights": model.weights_sha256(),
        "sess_ray": _code_sha256(),
        **{f"module {name}": _module_sha256(name) for name in own},
        **{name: version(name) for name in PACKAGES},
    }


def refuse_other_settings(store: Store, config: ExplainConfig) -> dict[str, Any] | None:
    """Return what started.json says, None for an unused output.

    Raises
    ------
    SessError
        If the output is of another run.
    """
    started = store.read_json(STARTED)
    if started is None:
        if store.is_used():
            raise SessError(
                f"output {public(store.url)} holds files, but no {STARTED} that says of which run:"
                " add --overwrite to replace them, or choose another --output"
            )
        return None
    before, now = started["settings"], settings(config)
    other = [f"{name} was {before.get(name)!r} and is {now[name]!r}" for name in now if now[name] != before.get(name)]
    if other:
        raise SessError(
            f"output {public(store.url)} is of a run with other settings ({'; '.join(other)}):"
            " add --overwrite to replace it, or choose another --output"
        )
    return started


def refuse_other_code(started: dict[str, Any], made: dict[str, str], output: str) -> None:
    """Raise `SessError` if the weights or the code are not those that an output was made with."""
    before = started["made_with"]
    other = [
        f"{name} ({before.get(name, 'none')[:12]} then, {made[name][:12]} now)"
        for name in made
        if made[name] != before.get(name)
    ]
    if other:
        raise SessError(
            f"output {public(output)} was made with other versions of {', '.join(other)}:"
            " add --resume-anyway to go on, --overwrite to replace it, or choose another --output"
        )


def remaining(tasks: pa.Table, ledger: Ledger) -> pa.Table:
    """Return the tasks that an output does not hold; tar shards with the names that they need not give again."""
    finished = ledger.finished
    if not len(finished):
        return tasks
    left = tasks.filter(pc.invert(pc.is_in(tasks["image_id"], finished)))
    shards = set(left.filter(shard_rows(left["uri"]))["image_id"].to_pylist())
    if not shards:
        return left
    done: dict[str, list[str]] = {}
    for image_id in finished.to_pylist():
        found = _IN_SHARD.fullmatch(image_id)
        if found and found[1] in shards:
            done.setdefault(found[1], []).append(found[2])
    names = pa.array([done.get(name) for name in left["image_id"].to_pylist()], pa.list_(pa.string()))
    return left.set_column(left.column_names.index("done"), "done", names)


@cache
def _code_sha256() -> str:
    return _sha256(*sorted(Path(sess_ray.__file__).parent.rglob("*.py")))


def _module_sha256(name: str) -> str:
    file = inspect.getsourcefile(importlib.import_module(name))
    return _sha256(Path(file)) if file else "unknown"


def _sha256(*files: Path) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()
