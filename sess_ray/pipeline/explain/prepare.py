"""What a run has to do: everything that can be checked before Ray starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.access import one_line, public, use
from sess_ray.errors import SessError
from sess_ray.io.columns import LABEL_COLUMNS
from sess_ray.io.inputs import Inputs, read_inputs
from sess_ray.io.items import ITEMS, shard_rows
from sess_ray.io.ledger import Ledger, read_ledger
from sess_ray.io.names import read_class_names
from sess_ray.io.places import is_below, resolved
from sess_ray.io.store import FINISHED, RUN, STARTED, Store
from sess_ray.pipeline.cluster.output import refuse_inside_run
from sess_ray.pipeline.explain import large, tars
from sess_ray.pipeline.explain.config import DEMO_MODEL, ExplainConfig
from sess_ray.pipeline.explain.rehearsal import rehearse
from sess_ray.pipeline.explain.resume import (
    made_with,
    refuse_other_code,
    refuse_other_settings,
    remaining,
    settings,
    tidy,
)
from sess_ray.pipeline.explain.stages import TASKS

if TYPE_CHECKING:
    from sess_ray.engine.sess import SESS
    from sess_ray.models import Model


@dataclass
class Job:
    """A run that has been checked and can start: `prepare` makes it, `run` runs it.

    Attributes
    ----------
    config : ExplainConfig
    model : Model
    inputs : int
        Images (and tar shards) of the input; of a large manifest its rows.
    tasks : pa.Table
        As `TASKS` has them: those that the output does not hold. Of a large manifest none, or with ``dry_run`` some.
    store : Store
    settings : dict
        Those that make a map what it is, none of them left open.
    made_with : dict
        Versions of what the maps depend on.
    left_out : list of str
        Lines on what of the annotations, or of the labels, is not explained, and why.
    large : Large, Tars or None
        What is left of a manifest, or of tar shards, whose ids nobody holds.
    """

    config: ExplainConfig
    model: Model
    inputs: int
    tasks: pa.Table
    store: Store
    settings: dict[str, Any]
    made_with: dict[str, str]
    left_out: list[str] = field(default_factory=list)
    large: large.Large | tars.Tars | None = None

    @property
    def left(self) -> int:
        """Images (and tar shards) of the input that are still to be explained."""
        return self.large.left if self.large else self.tasks.num_rows

    @property
    def begun(self) -> int:
        """Images of the tar shards that are left that another run has finished."""
        if isinstance(self.large, tars.Tars):
            return self.large.begun
        done: int = pc.sum(pc.list_value_length(self.tasks["done"])).as_py() or 0
        return done

    @property
    def finished(self) -> int:
        """Images of the input that another run has finished."""
        return self.inputs - self.left

    @property
    def share(self) -> float:
        """How many images each of the tasks stands for."""
        return self.left / self.tasks.num_rows if self.tasks.num_rows else 1.0

    def start(self) -> None:
        """Say in the output of what run it is."""
        if self.config.overwrite:
            self.store.clear()
        self.store.remove(FINISHED)
        told = {"settings": self.settings, "made_with": self.made_with, "groups": self.groups}
        if self.large:
            told["spans"] = self.large.source.spans.told()
        self.store.write_json(STARTED, told)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The classes of each target that means several; those of the labels in tar shards show when they are read."""
        return {group.name: group.classes for group in self.model.groups}

    @property
    def countable(self) -> bool:
        """Whether the number of images is known: how many a tar shard holds shows when it is read."""
        return not pc.any(shard_rows(self.tasks["uri"])).as_py()


def prepare(
    config: ExplainConfig,
    meanwhile: Callable[[], None] | None = None,
    claim: Callable[[Store], bool] | None = None,
) -> Job:
    """Check everything that can be checked before Ray starts.

    Parameters
    ----------
    config : ExplainConfig
    meanwhile : callable, optional
        Called once, when the input and the output are right, before torch is imported and the model is loaded, which
        take seconds, or while many images are listed; such as `sess_ray.pipeline.cluster.session.start_early`.
    claim : callable, optional
        Called with the output, before it is looked at what is left to explain: `sess_ray.io.lease.Lease.take`. Without
        it, `run` takes the output.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    use(config.access())
    store = Store(config.output)
    _refuse_what_is_written(config)
    refuse_inside_run(store)
    started = None if config.overwrite else _started(store, config)
    known = large.known(config, store, started)
    meanwhile = cache(meanwhile) if meanwhile else None  # once
    found = Inputs(ITEMS.empty_table(), known.names) if known else _inputs(config, meanwhile)
    if config.input is not None and config.model == DEMO_MODEL and config.weights is not None:
        raise SessError("--weights need the --model that they are of")
    if meanwhile:
        meanwhile()
    model, sess = _engine(config)
    many = large.planned(config, known, model) if known else None
    tasks, left_out = (TASKS.empty_table(), []) if known else _targets(config, found, model)
    made = made_with(config, model, sess)
    if started:
        refuse_other_settings(store, config, sess)
    if started and not config.resume_anyway:
        refuse_other_code(started, made, config.output)
    if not config.dry_run:
        store.check_writable()
        if claim and _is_late(store, claim, started, config):
            return prepare(config)
    inputs, shards = found.images.num_rows, None
    if many:
        inputs = many.source.stop
        tasks = large.looked_at(
            config,
            store if started else None,
            many,
            lambda items: _targets(config, replace(found, images=items), model)[0],
        )
    else:
        tasks, shards = _left(store, tasks, config, started)
    if many.left if many else tasks["error"].null_count:
        rehearse(sess)
    return Job(config, model, inputs, tasks, store, settings(config, sess), made, left_out, many or shards)


def _is_late(
    store: Store, claim: Callable[[Store], bool], started: dict[str, Any] | None, config: ExplainConfig
) -> bool:
    """Claim an output; say whether another run was there till then, and has left who knows what."""
    return claim(store) or (not config.overwrite and store.read_json(STARTED) != started)


def _refuse_what_is_written(config: ExplainConfig) -> None:
    """Refuse an input among the files of the output, which `--overwrite` removes."""
    if config.input is None:
        return
    place = resolved(config.input)
    for name in RUN:
        if is_below(place, resolved(f"{config.output.rstrip('/')}/{name}")):
            raise SessError(
                f"--input {public(config.input)} is where --output {public(config.output)} is written, in {name}:"
                " choose another --output"
            )


def _inputs(config: ExplainConfig, meanwhile: Callable[[], None] | None) -> Inputs:
    if config.input is None:
        return Inputs(_demo_items().slice(0, config.limit))
    columns = config.image_column, config.label_column
    found = read_inputs(config.input, config.limit, config.output, *columns, meanwhile)
    if config.targets == "label":
        _refuse_unlabelled(config, found)
    return found


def _started(store: Store, config: ExplainConfig) -> dict[str, Any] | None:
    try:
        return refuse_other_settings(store, config)
    except SessError:
        raise
    except NotADirectoryError as error:
        raise SessError(
            f"output {public(config.output)} is a file, or lies below one: choose another --output"
        ) from error
    except Exception as error:
        raise SessError(f"cannot open output {public(config.output)}: {one_line(error)}") from error


def _engine(config: ExplainConfig) -> tuple[Model, SESS]:
    """Load the model, and check the settings of the engine by making one."""
    from sess_ray import methods
    from sess_ray.engine.sess import SESS
    from sess_ray.models import load_model

    methods.get(config.method).parsed(config.method_options())
    names = read_class_names(config.class_names) if config.class_names else None
    loaded = load_model(config.model, config.weights, config.layer, class_names=names, **config.reading())
    model = loaded.with_groups({})  # a copy, to learn
    return model, SESS(model, device="cpu", **config.explainer_options())  # type: ignore[arg-type]


def _targets(config: ExplainConfig, found: Inputs, model: Model) -> tuple[pa.Table, list[str]]:
    """Find the classes to explain of each image; and say what of the annotations, or labels, is left out."""
    from sess_ray.io.annotation_formats import read_annotations
    from sess_ray.pipeline.explain.targets import annotated, label_classes, malformed, resolve, unclassed, unlabelled

    items = found.images
    if config.annotations is None:
        given = (config.targets, model, config.class_map, found.class_names, partial(_folders, config))
        tasks = resolve(items, *given)
        return tasks, unlabelled(tasks)
    annotations = read_annotations(config.annotations)
    classes = label_classes(annotations, config.class_map, model)
    unknown: Counter[str] = Counter()
    tasks = annotated(items, annotations, classes, model, config.several_classes, unknown)
    return tasks, [*malformed(annotations), *unclassed(unknown, model)]


def _refuse_unlabelled(config: ExplainConfig, found: Inputs) -> None:
    """Raise `SessError` where nothing says what any image shows, but a table may in a column of another name."""
    told = (found.images[name].null_count < found.images.num_rows for name in ("labels", "targets", "folder"))
    if found.unlabelled and not any(told) and not pc.any(shard_rows(found.images["uri"])).as_py():
        raise SessError(
            f"{public(config.input or '')} has no column of labels ({', '.join(LABEL_COLUMNS)});"
            f" it has: {', '.join(found.unlabelled)}: give one as --label-column"
        )


def _folders(config: ExplainConfig) -> list[str]:
    """List the folders of all images, also of those that a limit leaves out."""
    if config.input is None or config.limit is None:
        return []
    every = read_inputs(config.input, None, config.output, config.image_column, config.label_column).images
    folders: list[str] = every["folder"].unique().to_pylist()
    return [folder for folder in folders if folder is not None]


def _left(
    store: Store, tasks: pa.Table, config: ExplainConfig, started: dict[str, Any] | None
) -> tuple[pa.Table, tars.Tars | None]:
    """Return the tasks that are left to a run; and the shards, if they are such whose images nobody holds."""
    if tars.known(tasks, config, store, started):
        shards = tars.planned(tasks, config, store, resumed=started is not None)
        return shards.tasks, shards
    if started is None:
        return tasks, None
    if config.dry_run:
        ledger = read_ledger(store, repair=False)
        return remaining(tasks, Ledger(ledger.maps, ledger.errors.slice(0, 0)) if config.retry_errors else ledger), None
    tidy(store, config)
    return remaining(tasks, read_ledger(store)), None


def _demo_items() -> pa.Table:
    from sess_ray import demo

    return pa.Table.from_pylist([vars(item) for item in demo.images()], ITEMS)
