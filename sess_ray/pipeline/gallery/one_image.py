"""The pages of single images, with all of their windows; few images need no Ray."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from sess_ray.access import one_line, public
from sess_ray.engine.chosen import is_chosen
from sess_ray.engine.sess import SESS
from sess_ray.engine.targets import TargetSpec
from sess_ray.errors import SessError
from sess_ray.io.decode import decode
from sess_ray.io.reading import read_items
from sess_ray.io.store import FINISHED, Store, digest
from sess_ray.models import load_model
from sess_ray.models.groups import meaning
from sess_ray.pipeline.cluster.rows import Row
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.gallery.config import PatchConfig
from sess_ray.pipeline.gallery.prepare import GALLERY, Gallery
from sess_ray.pipeline.gallery.windows_page import write_page


def write_patches(config: PatchConfig, store: Store) -> int:
    """Explain an image, all of its windows, and write its page; return the number of windows.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    assert config.image is not None
    sess, ratio = engine(config)
    target: TargetSpec = config.target
    if not is_chosen(config.target):
        name, classes = meaning(config.target, sess.model)
        target = [{name: classes}]
    pixels = pixels_of(config.image)
    [found] = sess.explain([pixels], [target])
    if not found:
        raise SessError(f"{public(config.image)}: no class has {config.target}")
    explanation = found[0]
    store.clear(GALLERY)
    write_page(store, config.image.rsplit("/", 1)[-1], pixels, sess, explanation, ratio)
    return explanation.num_patches


def engine(config: PatchConfig) -> tuple[SESS, float]:
    """Return what explains all windows, and the share of them that the method drops by itself or as it is told."""
    model = load_model(config.model, config.weights, config.layer, **config.reading())
    names = {field.name for field in dataclasses.fields(config)} - {"image", "target"}
    options = ExplainConfig(**{name: getattr(config, name) for name in names}).explainer_options()
    sess = SESS(model, **{**options, "pre_filter_ratio": 0.0, "keep_maps": True})  # type: ignore[arg-type]
    return sess, sess.method.ratio(config.pre_filter_ratio)


def pixels_of(image: str) -> np.ndarray:
    """Return an image (H, W, 3) uint8; `SessError` where it cannot be read."""
    [content] = read_items([image])
    if isinstance(content, Exception):
        raise SessError(f"cannot read {public(image)}: {one_line(content)}") from content
    return decode(content)


def write_windows(gallery: Gallery, worst: int) -> None:
    """Write the pages of all windows of some rows, explained as the first run that has windows; tell rows of theirs.

    Parameters
    ----------
    gallery : Gallery
    worst : int
        How many rows have one: the worst by the first metric where there is an evaluation, else the first. A row
        whose image cannot be read has no page.
    """
    sess, ratio = engine(_as_explained(gallery.config.runs().values(), worst))
    for row in itertools.islice(_worst_first(gallery), worst):
        try:
            pixels = pixels_of(row["uri"])
        except SessError:
            continue
        target = {row["target_name"]: tuple(row["target_classes"])} if row.get("target_classes") else row["target"]
        [[explanation]] = sess.explain([pixels], [[target]])
        row["windows"] = f"windows/{digest([row['image_id']])}-{row['target']}/index.html"
        place = Store(gallery.store.path(row["windows"].removesuffix("/index.html")))
        write_page(place, row["image_id"], pixels, sess, explanation, ratio)


def _as_explained(runs: Iterable[str], worst: int) -> PatchConfig:
    """Return the settings of the first run whose maps are made of windows."""
    names = {field.name for field in dataclasses.fields(PatchConfig)} - {"image", "target"}
    for url in runs:
        settings = (Store(url).read_json(FINISHED) or {}).get("config", {})
        if settings.get("num_scales"):
            own = {key: value for key, value in settings.items() if key in names}
            return PatchConfig(**own | {"method_option": tuple(own.get("method_option") or ())})
    raise SessError(f"--window-pages {worst}: no run has a {FINISHED} that says how its maps were made of windows")


def _worst_first(gallery: Gallery) -> Iterator[Row]:
    """Yield rows, the worst by the first metric of the first run first."""
    first = next(iter(gallery.metrics), None)
    if first is None:
        yield from gallery.rows
        return
    sign = 1 if first["better"] == "higher" else -1
    worth = [
        (np.inf if value is None else sign * value, row["number"])
        for value, row in zip(first["values"], gallery.rows, strict=True)
    ]
    yield from (gallery.rows[number] for _, number in sorted(worth))
