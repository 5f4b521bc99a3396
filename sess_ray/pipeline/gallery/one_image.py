"""The page of one image; no pipeline: one image needs no Ray."""

from __future__ import annotations

import dataclasses

from sess_ray.access import one_line, public
from sess_ray.engine.chosen import is_chosen
from sess_ray.engine.sess import SESS
from sess_ray.engine.targets import TargetSpec
from sess_ray.errors import SessError
from sess_ray.io.decode import decode
from sess_ray.io.reading import read_items
from sess_ray.io.store import Store
from sess_ray.models import load_model
from sess_ray.models.groups import meaning
from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.gallery.config import PatchConfig
from sess_ray.pipeline.gallery.prepare import GALLERY
from sess_ray.pipeline.gallery.windows_page import write_page


def write_patches(config: PatchConfig, store: Store) -> int:
    """Explain an image, all of its windows, and write its page; return the number of windows.

    Raises
    ------
    SessError
        With one line on what is wrong and what to do.
    """
    assert config.image is not None
    [content] = read_items([config.image])
    if isinstance(content, Exception):
        raise SessError(f"cannot read {public(config.image)}: {one_line(content)}") from content
    pixels = decode(content)
    model = load_model(config.model, config.weights, config.layer, **config.reading())
    names = {field.name for field in dataclasses.fields(config)} - {"image", "target"}
    options = ExplainConfig(**{name: getattr(config, name) for name in names}).explainer_options()
    target: TargetSpec = config.target
    if not is_chosen(config.target):
        name, classes = meaning(config.target, model)
        target = [{name: classes}]
    sess = SESS(model, **{**options, "pre_filter_ratio": 0.0, "keep_maps": True})  # type: ignore[arg-type]
    [found] = sess.explain([pixels], [target])
    if not found:
        raise SessError(f"{public(config.image)}: no class has {config.target}")
    explanation = found[0]
    store.clear(GALLERY)
    ratio = sess.method.ratio(config.pre_filter_ratio)
    write_page(store, config.image.rsplit("/", 1)[-1], pixels, sess, explanation, ratio)
    return explanation.num_patches
