"""Going on where another run has stopped: what is left to do, and whether it is the same run.

An output says in started.json what its maps are made with. Another run goes on there only with the same settings,
model and code; then the images whose ids it holds are left out, and that is all there is to it: rows are written
together with their ids, so no second record can disagree with them.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.access import public
from sess_ray.errors import SessError
from sess_ray.io.cuts import Cut
from sess_ray.io.held import Held, held, settled
from sess_ray.io.items import shard_rows
from sess_ray.io.ledger import Ledger
from sess_ray.io.places import resolved
from sess_ray.io.store import STARTED, Store
from sess_ray.pipeline.explain.code import code_sha256, module_sha256

if TYPE_CHECKING:
    from sess_ray.engine.sess import SESS
    from sess_ray.models import Model
    from sess_ray.pipeline.explain.config import ExplainConfig

# Settings that do not change what a map is: only where and how fast it is made, and how many.
FREE = frozenset(
    (
        *("output", "limit", "overwrite", "resume_anyway", "retry_errors", "wait", "dry_run", "max_errors"),
        "overlays",
        *("batch_size", "actors", "gpus_per_actor", "address", "max_pixels", "max_patches", "max_bytes"),
        *("storage_option", "read_timeout", "retry_seconds"),
        "weights",  # their sha256 counts, wherever they lie
    )
)
# Where something lies: compared by the place, and free with --resume-anyway, since it may have been moved.
PLACES = ("input", "annotations", "class_map", "class_names", "prompts")
# None until the model and the method are known.
DECIDED = ("step_size", "pre_filter_ratio", "fade")
# What maps were made with before there was such a setting, where that is not what it is by default.
BEFORE: dict[str, Any] = {"fade": 0.0, "several_classes": "best"}
# Of these, what a map is does depend on the version.
PACKAGES = ("torch", "torchvision", "pillow")
_IN_SHARD = re.compile(
    r"(.*?\.tar(?:\?[^/]*)?)/(.*)", re.DOTALL | re.IGNORECASE
)  # an image_id: the shard's, and the member


def settings(config: ExplainConfig, sess: SESS | None = None) -> dict[str, Any]:
    """Return the settings that make a map what it is, without credentials.

    Parameters
    ----------
    config : ExplainConfig
    sess : SESS, optional
        What the settings make: it knows the values of those that are left to the model and the method. Without it,
        these are None.
    """
    found = {name: value for name, value in config.public().items() if name not in FREE}
    for name in PLACES:
        given = getattr(config, name)
        found[name] = None if given is None else public(resolved(given))
    if config.annotations is None:
        del found["several_classes"]  # it is about their labels
    for name in DECIDED:
        if found[name] is None and sess is not None:
            found[name] = _step(sess) if name == "step_size" else getattr(sess.settings, name)
    return found


def _step(sess: SESS) -> int | None:
    """Return the step that is left to the model: a window's side; None where its sides differ, each a step along it."""
    return sess.settings.window if isinstance(sess.settings.window, int) else None


def made_with(config: ExplainConfig, model: Model, sess: SESS) -> dict[str, str]:
    """Return what a map depends on besides the settings: the weights, our code and that of others."""
    from sess_ray.methods.registry import package_of as package_of_method  # needs torch
    from sess_ray.models.load import package_of

    packages = {config.model: package_of(config.model), config.method: package_of_method(config.method)}
    own = [name.partition(":")[0] for name, package in packages.items() if ":" in name and not package]
    others = dict.fromkeys(package for package in packages.values() if package)
    return {
        "weights": model.weights_sha256(),  # of the engine's own copy they may be rounded
        "sess_ray": code_sha256(sess.method.function.__module__),
        **{f"module {name}": module_sha256(name) for name in own},
        **{name: version(name) for name in (*PACKAGES, *others)},
    }


def refuse_other_settings(store: Store, config: ExplainConfig, sess: SESS | None = None) -> dict[str, Any] | None:
    """Return what started.json says, None for an unused output.

    Parameters
    ----------
    store : Store
        The output.
    config : ExplainConfig
    sess : SESS, optional
        As for `settings`; without it, what it decides is not compared.

    Raises
    ------
    SessError
        If the output is of another run.
    """
    started = _started(store)
    if started is None:
        if store.is_used():
            raise SessError(
                f"output {public(store.url)} holds files, but no {STARTED} that says of which run:"
                " add --overwrite to replace them, or choose another --output"
            )
        return None
    before, now = _known(started["settings"], config, sess), settings(config, sess)
    different = [name for name in now if now[name] != before[name] and not _is_open(name, sess, now, before)]
    if not config.num_scales:  # without SESS there are no windows
        different = [name for name in different if name not in DECIDED]
    moved = [name for name in different if name in PLACES]
    if config.resume_anyway:
        different = [name for name in different if name not in PLACES]
    if different:
        other = "; ".join(f"{name} was {said(before[name])} and is {said(now[name])}" for name in different)
        way = "--resume-anyway to go on, --overwrite" if different == moved else "--overwrite"
        raise SessError(
            f"output {public(store.url)} is of a run with other settings ({other}):"
            f" add {way} to replace it, or choose another --output"
        )
    return started


def _started(store: Store) -> dict[str, Any] | None:
    """Return what started.json says; refused where that is not what a run has written there."""
    with suppress(SessError):
        started = store.read_json(STARTED)
        if started is None:
            return None
        if isinstance(started.get("settings"), dict) and isinstance(started.get("made_with", {}), dict):
            return started
    raise SessError(
        f"output {public(store.url)} holds a damaged {STARTED}: add --overwrite to replace the run, or choose another"
        " --output"
    )


def _is_open(name: str, sess: SESS | None, *settings: dict[str, Any]) -> bool:
    """Say whether a setting is one that the model or the method has yet to decide."""
    if name == "step_size" and sess is not None:
        return False  # None is as it was decided: see `_step`
    return name in DECIDED and any(found[name] is None for found in settings)


def said(value: object) -> str:
    """Return the value of a setting as a file of settings has it.

    >>> said(None), said(True), said("top1"), said(["a=1", "b=2"]), said([])
    ('not given', 'true', "'top1'", "'a=1', 'b=2'", 'not given')
    """
    if isinstance(value, list):
        return ", ".join(map(repr, value)) or "not given"
    return "not given" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _known(stored: dict[str, Any], config: ExplainConfig, sess: SESS | None) -> dict[str, Any]:
    """Return an output's settings as this version writes them: what it did not have is `BEFORE`'s or the default."""
    found: dict[str, Any] = {field.name: field.default for field in fields(config)} | BEFORE | stored
    for name in PLACES:
        found[name] = None if found[name] is None else public(resolved(found[name]))
    if found["step_size"] is None and sess is not None:
        found["step_size"] = _step(sess)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def refuse_other_code(started: dict[str, Any], made: dict[str, str], output: str) -> None:
    """Raise `SessError` if the weights or the code are not those that an output was made with."""
    before = started.get("made_with", {})
    other = [
        f"{name} ({str(before.get(name, 'none'))[:12]} then, {made[name][:12]} now)"
        for name in made
        if made[name] != before.get(name)
    ]
    if other:
        raise SessError(
            f"output {public(output)} was made with other versions of {', '.join(other)}:"
            " add --resume-anyway to go on, --overwrite to replace it, or choose another --output"
        )


def tidy(store: Store, config: ExplainConfig) -> None:
    """Remove from an output what is half-written, and errors that are to be tried again."""
    store.tidy()
    if config.retry_errors:
        store.clear(["errors"])


def held_before(store: Store, cut: Cut, config: ExplainConfig) -> Held:
    """Return what an output of spans holds, but for errors that are to be tried again.

    Whatever it holds twice, or half-written, is removed before; not by a dry run, which changes nothing.
    """
    if config.dry_run:
        return held(store, cut, ["maps"] if config.retry_errors else ["maps", "errors"])
    tidy(store, config)
    return settled(store, cut)


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
