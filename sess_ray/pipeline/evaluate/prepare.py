"""What is checked before an evaluation starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

from sess_ray import methods
from sess_ray.access import public, use
from sess_ray.errors import SessError
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.annotations import Annotations
from sess_ray.io.groups import stream_tables
from sess_ray.io.moved import Moved
from sess_ray.io.names import prompts_of, read_class_names
from sess_ray.io.store import FINISHED, STARTED, Store, stored_target
from sess_ray.metrics.suite import SUITE, choose
from sess_ray.models import Model, load_model
from sess_ray.pipeline.cluster.output import map_files, refuse_used
from sess_ray.pipeline.cluster.settings import ReadsModel
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.judging import problem
from sess_ray.pipeline.evaluate.parts import Selection, select_maps
from sess_ray.pipeline.explain.targets import label_classes

EVALUATION = ("summary.json", "summary.csv", "summary.md", "report.html", "results", "problems")
# The pointing game of TorchRay blurs maps of pixel gradients by this share of their longer side, and no others.
BLUR = 0.02
# Of the methods that go through the whole network and back, those whose maps are as coarse as a layer.
NOT_BLURRED = ("excitation_backprop", "shapleycam", "attention_rollout", "generic_attention")


@dataclass
class Evaluation:
    """An evaluation that has been checked and can start: `prepare` makes it, `run` runs it.

    Attributes
    ----------
    config : EvaluateConfig
    metrics : list of str
        Names of the suite.
    runs : dict of str to Store
    store : Store
        For the results.
    model : Model
    annotations : Annotations or None
    classes : dict of str to tuple of int
        What each label of the annotations means to the model; nothing for some.
    selection : Selection
        Where the maps are.
    missing : list of dict
        Rows of problems/ that the annotations alone give rise to.
    smooth : dict of str to float
        For each run, by how much its maps are blurred for the pointing game, as a share of the longer side.
    settings : dict of str to dict
        What the maps of each run are made with, as its started.json says.
    """

    config: EvaluateConfig
    metrics: list[str]
    runs: dict[str, Store]
    store: Store
    model: Model
    annotations: Annotations | None
    classes: dict[str, tuple[int, ...]]
    selection: Selection
    missing: list[dict[str, Any]]
    smooth: dict[str, float]
    settings: dict[str, dict[str, Any]]

    @property
    def maps(self) -> int:
        """Number of maps."""
        return self.selection.maps

    def problems(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of problems/ that are known before any map is read."""
        for run, image_id, target in self.selection.unplaced():
            yield problem(run, image_id, target, "no image", f"not in {self.config.images}")
        yield from self.missing


def prepare(config: EvaluateConfig) -> Evaluation:
    """Check everything that can be checked before Ray starts.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    use(config.access())
    if not config.run:
        raise SessError("nothing to evaluate: give --run NAME=OUTPUT, the output of sess-ray explain")
    metrics = choose(config.metric_names(), annotated=config.annotations is not None)
    runs = {name: Store(url) for name, url in config.runs().items()}
    store = Store(config.output)
    files = {name: map_files(found, f"run {name}: {public(found.url)}") for name, found in runs.items()}
    for name, found in runs.items():
        if found.url == store.url:
            raise SessError(f"--output {public(store.url)} is run {name} itself: choose another folder")
    refuse_used(store, EVALUATION, "an evaluation", overwrite=config.overwrite)
    model = _model(config, runs)
    annotations = read_annotations(config.annotations) if config.annotations else None
    check_packages(metrics, annotations if config.region == "segments" else None)
    classes = label_classes(annotations, config.class_map, model) if annotations else {}
    selection = select_maps(runs, files, config.limit, Moved(config.images) if config.images else None)
    if annotations:
        _check_fit(annotations, selection, config)
    missing = _without_map(annotations, classes, selection) if annotations else []
    smooth = {name: _smooth(config, found, files[name]) for name, found in runs.items()}
    settings = {name: (found.read_json(STARTED) or {}).get("settings", {}) for name, found in runs.items()}
    store.check_writable()
    return Evaluation(config, metrics, runs, store, model, annotations, classes, selection, missing, smooth, settings)


def _smooth(config: EvaluateConfig, run: Store, files: list[str]) -> float:
    """Return the blur before a run's maxima: what is set, else that of the benchmark for its method."""
    if config.pointing_smooth is not None:
        return config.pointing_smooth
    [table] = run.read_tables(files[:1], ["method"])
    return benchmark_blur(table["method"][0].as_py()) if table.num_rows else 0.0


def benchmark_blur(method: str) -> float:
    """Return the blur that the pointing game's benchmark gives maps of a method, as a share of the longer side.

    >>> benchmark_blur("guided_backprop"), benchmark_blur("gradcam"), benchmark_blur("excitation_backprop")
    (0.02, 0.0, 0.0)
    """
    known = method in methods.names() and method not in NOT_BLURRED  # one of the user's own need not be at hand
    return BLUR if known and methods.get(method).family == "B" else 0.0


def check_packages(metrics: list[str], annotations: Annotations | None) -> None:
    """Say before any work starts which package is missing; `annotations` where their segments are wanted."""
    needed = {SUITE[name].package: name for name in metrics if SUITE[name].package}
    if annotations and any(thing.segments for found in annotations.by_id.values() for thing in found.objects):
        needed["pycocotools"] = "--region segments"
    for package, purpose in needed.items():
        if find_spec(package) is None:
            raise SessError(f"{purpose} needs {package}: install sess-ray[evaluate]")


def _model(config: EvaluateConfig, runs: dict[str, Store]) -> Model:
    """Load the model that is named, else that of the runs."""
    names = read_class_names(config.class_names) if config.class_names else None
    if config.model is not None:
        return load_model(config.model, config.weights, config.layer, class_names=names, **config.reading())
    told = {name: found.read_json(FINISHED) for name, found in runs.items()}
    for name, record in told.items():
        if record is None:
            raise SessError(f"run {name} has no {FINISHED}, it did not finish: give its --model")
    made = {name: record["model"]["weights_sha256"] for name, record in told.items() if record}
    if len(set(made.values())) > 1:
        raise SessError(f"runs {' and '.join(made)} are of different models: evaluate them apart, or give a --model")
    [first, *_] = [record["config"] for record in told.values() if record]
    reading = ReadsModel(**{field.name: first[field.name] for field in fields(ReadsModel) if field.name in first})
    told_of = reading.reading() | {"prompts": prompts_of(first)}
    return load_model(first["model"], first["weights"], first["layer"], class_names=names, **told_of)


def _check_fit(annotations: Annotations, selection: Selection, config: EvaluateConfig) -> None:
    """Raise `SessError` where no map is of an annotated image: the annotations are of another dataset."""
    seen = None
    for _, _, table in selection.stream(["target"]):
        for image_id in table["image_id"].to_pylist():
            if annotations.find(image_id):
                return
            seen = seen or image_id
    if seen and annotations.by_id:
        raise SessError(
            f"--annotations {public(config.annotations or '')}: none of the images of --run is annotated there; they "
            f"are named like {seen!r}, those that are annotated like {next(iter(annotations.by_id))!r}"
        )


def _without_map(
    annotations: Annotations, classes: dict[str, tuple[int, ...]], selection: Selection
) -> list[dict[str, Any]]:
    """List what is annotated and has no map, and what is wrong with the annotations themselves.

    An image that no run was given is nobody's loss: it is left out.
    """
    runs = selection.runs
    targets: dict[str, dict[str, set[int]]] = {run: {} for run in runs}
    for run, _, table in selection.stream(["target"]):
        for image_id, target in zip(table["image_id"].to_pylist(), table["target"].to_pylist(), strict=True):
            annotation = annotations.find(image_id)
            if annotation:
                targets[run].setdefault(annotation.image_id, set()).add(target)
    given = {image_id for found in targets.values() for image_id in found} | _failed(annotations, runs)
    meant = {label: {*own, stored_target(own)} for label, own in classes.items() if own}
    missing = [problem("", image_id, None, "annotation", detail) for image_id, detail in annotations.problems]
    for annotation in annotations.by_id.values():
        if annotation.image_id not in given:
            continue
        for label in dict.fromkeys(thing.label for thing in annotation.objects):
            if not classes[label]:
                missing.append(problem("", annotation.image_id, None, "unknown label", label))
                continue
            if all(thing.difficult for thing in annotation.objects if thing.label == label):
                continue
            missing += [
                problem(run, annotation.image_id, None, "no map", label)
                for run, found in targets.items()
                if not found.get(annotation.image_id, set()).intersection(meant[label])
            ]
    return missing


def _failed(annotations: Annotations, runs: Mapping[str, Store]) -> set[str]:
    """Return the annotated images that a run could not explain."""
    found = set()
    for store in runs.values():
        for _, table in stream_tables(store, store.tables("errors"), ["image_id"]):
            found |= {
                annotation.image_id for annotation in map(annotations.find, table["image_id"].to_pylist()) if annotation
            }
    return found
