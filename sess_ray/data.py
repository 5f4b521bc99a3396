"""The stages of the explain job on a Ray Dataset of your own, to stand in a pipeline of your own."""

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
    """Explain the images of a Ray Dataset; lazy, as all of Ray Data.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Such as of ``ray.data.read_images``, ``read_parquet`` or ``read_webdataset``.
    model : str or nn.Module or Model
        What `sess_ray.load_model` makes or takes.
    image_column : str
        Column of the images: (H, W, 3) uint8 pixels, also grey or with alpha; the bytes of a file; Hugging Face's
        struct of bytes and path; or a path or URL.
    target_column : str, optional
        Column of the classes to explain: an index or name of a class of the model, or a list of them, or ``"topK"``.
        By default all images have the same `targets`.
    targets : str, list of int or str, or callable
        Without a `target_column`: ``"top1"``, ``"top5"``, ... or classes by index or name, or groups of classes in
        words (`sess_ray.models.groups.meaning`), such as ``"dog=151-268"``; or a function that is given the row of an
        image as a dict, without the image, and returns what a `target_column` may hold.
    concurrency : int or (int, int), optional
        Actors that hold the model, or the least and the most of them; by default one for each GPU, or for each CPU
        where there is none.
    num_gpus, num_cpus : float, optional
        That each actor takes; by default a GPU where the cluster has some, and a CPU.
    max_pixels : int
        Refuse larger images.
    **settings
        What `sess_ray.SESS` takes: ``method``, ``num_scales``, ``pre_filter_ratio``, ``precision``, ``batch_size``
        (windows in one forward pass), ...

    Returns
    -------
    ray.data.Dataset
        A row for each image and class, with the columns of maps/ (see docs/running.md), the dataset's other columns,
        and ``error``: an image that cannot be explained is one row with the reason and no map. ``image_id`` is the
        dataset's ``image_id``, ``id``, ``path`` or ``__key__``, the first that is there; ``uri`` its ``uri`` or
        ``path``.

    Raises
    ------
    SessError
        If a setting is wrong, a class of `targets` is none of the model, or, where the dataset's columns are known
        before it runs, one is missing or has the name of one of maps.

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
    sess = SESS(loaded, device="cpu", **settings)  # what is wrong shows here, and not on the first actor
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
