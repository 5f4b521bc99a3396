"""The stages of the explain job for a Ray Dataset of your own, as a part of your own pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sess_ray.errors import SessError
from sess_ray.io.decode import MAX_PIXELS
from sess_ray.windows import needed

if TYPE_CHECKING:
    from ray.data import Dataset
    from torch import nn

    from sess_ray.models import Model


def explain(
    dataset: Dataset,
    model: str | nn.Module | Model,
    image_column: str = "image",
    target_column: str | None = None,
    *,
    targets: str | list[int | str] | Callable[[dict[str, Any]], Any] = "top1",
    concurrency: int | tuple[int, int] | None = None,
    num_gpus: float | None = None,
    num_cpus: float | None = None,
    max_pixels: int = MAX_PIXELS,
    **settings: Any,
) -> Dataset:
    """Explain the images of a Ray Dataset; lazy, like everything in Ray Data.

    Parameters
    ----------
    dataset : ray.data.Dataset
        For example from ``ray.data.read_images``, ``read_parquet`` or ``read_webdataset``.
    model : str or nn.Module or Model
        What `sess_ray.load_model` returns or accepts.
    image_column : str
        Column of the images: (H, W, 3) uint8 pixels, also grey or with alpha; the bytes of a file; Hugging Face's
        struct of bytes and path; or a path or URL.
    target_column : str, optional
        Column of the classes to explain: index or name of a class of the model, a list of them, or ``"topK"``.
        By default all images have the same `targets`.
    targets : str, list of int or str, or callable
        Without a `target_column`: ``"top1"``, ``"top5"``, ...; classes by index or name, or groups of classes as text
        (`sess_ray.models.groups.meaning`), such as ``"dog=151-268"``; or a function that receives the row of an
        image as a dict, without the image, and returns what a `target_column` may hold.
    concurrency : int or (int, int), optional
        Number of actors (workers that hold the model), or the least and the most of them. By default one for each GPU
        or, without GPUs, for each CPU.
    num_gpus, num_cpus : float, optional
        GPUs and CPUs of each actor. By default one GPU if the cluster has any, and one CPU.
    max_pixels : int
        Refuse images of more pixels.
    **settings
        Parameters of `sess_ray.SESS`: ``method``, ``num_scales``, ``pre_filter_ratio``, ``precision``, ``batch_size``
        (windows in one forward pass), ...

    Returns
    -------
    ray.data.Dataset
        A row for each image and class, with the columns of maps/ (see "What comes out" in README.md), the dataset's
        other columns, and ``error``: an image that cannot be explained is one row with the reason and no map.
        ``image_id`` is the first of the dataset's columns ``image_id``, ``id``, ``path`` and ``__key__`` that exists;
        ``uri`` is its ``uri`` or ``path``.

    Raises
    ------
    SessError
        If a setting is wrong, or a class of `targets` is not one of the model's. If the dataset's columns are known
        before it runs, also if one is missing, or has the name of a column of maps/.

    Examples
    --------
    >>> import ray, sess_ray.data  # doctest: +SKIP
    >>> photographs = ray.data.read_images("s3://bucket/images", mode="RGB", include_paths=True)  # doctest: +SKIP
    >>> maps = sess_ray.data.explain(photographs, "resnet50", targets="top5", num_gpus=1)  # doctest: +SKIP
    >>> maps.write_parquet("s3://bucket/maps")  # doctest: +SKIP
    """
    from sess_ray.engine.chosen import is_chosen
    from sess_ray.engine.sess import SESS
    from sess_ray.models import load_model
    from sess_ray.models.groups import meaning
    from sess_ray.pipeline.cluster.session import OF_TASKS, pool
    from sess_ray.pipeline.explain.cells import as_maps, check_columns, decode_cells
    from sess_ray.pipeline.explain.graph import explained
    from sess_ray.pipeline.explain.rehearsal import rehearse

    schema = dataset.schema(fetch_if_missing=False)
    if schema is not None:
        check_columns(list(schema.names), image_column, target_column)
    loaded = load_model(model)
    sess = SESS(loaded, device="cpu", **settings)  # wrong settings fail here, and not on the first actor
    if callable(targets):
        if target_column is not None:
            raise SessError(f"targets is a function, and target_column {target_column!r}: give one of them")
    elif not isinstance(targets, str):
        targets = [str(target) for target in targets]
        for target in targets:
            meaning(str(target), loaded)
    elif not is_chosen(targets):
        raise SessError(f"targets {targets!r}: use top1, top5 ..., p>0.5 or a list of classes")
    rehearse(sess)
    reading = {
        "image_column": image_column,
        "target_column": target_column,
        "targets": targets,
        "max_pixels": max_pixels,
        "needed": needed(loaded.input_size, sess.num_scales or 0, settings.get("max_map_side")),
    }
    workers = pool(_actors(concurrency), num_gpus, None, None)
    if num_cpus is not None:
        workers["num_cpus"] = num_cpus
    decoded = dataset.map_batches(decode_cells, fn_kwargs=reading, **OF_TASKS)
    maps = explained(decoded, loaded, {**settings, "method": sess.method}, workers)
    return maps.map_batches(as_maps, fn_kwargs={"method": sess.method.name, "model": loaded.name}, **OF_TASKS)


def _actors(concurrency: int | tuple[int, int] | None) -> str | None:
    """Return Ray's concurrency as the job's --actors has it.

    >>> _actors(3), _actors((1, 4)), _actors(None)
    ('3', '1-4', None)
    """
    if concurrency is None:
        return None
    return "-".join(map(str, concurrency)) if isinstance(concurrency, tuple) else str(concurrency)
