"""The stage that explains, on actors: of the job, and of a Dataset of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sess_ray.pipeline.cluster.session import map_blocks

if TYPE_CHECKING:
    from sess_ray.models import Model
    from sess_ray.pipeline.explain.targets import Declared


def explained(
    decoded: Any,
    model: Model,
    options: Mapping[str, Any],
    workers: Mapping[str, Any],
    actor: type | None = None,
    declared: Declared | None = None,
) -> Any:
    """Return the Dataset of explained images.

    Parameters
    ----------
    decoded : ray.data.Dataset
        Rows of `stages.DECODED`.
    model : Model
    options : mapping
        What `SESS` takes besides the model. The method itself and not its name: actors do not know what a script has
        registered.
    workers : mapping
        What `session.pool` returns.
    actor : type, optional
        Stands in for `ExplainActor` where the graph itself is measured.
    declared : Declared, optional
        What the words of a large manifest mean.

    Returns
    -------
    ray.data.Dataset
        Rows of `stages.EXPLAINED`.
    """
    import ray

    from sess_ray.pipeline.explain.actor import ExplainActor

    # A name of its own keeps the model for actors that are started again: the Dataset holds it.
    arguments = (ray.put(model), dict(options), declared)
    return map_blocks(decoded, actor or ExplainActor, fn_constructor_args=arguments, **workers)
