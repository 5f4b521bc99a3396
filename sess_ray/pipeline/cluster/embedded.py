"""Ray inside one process, on one machine, without what only a cluster needs.

Ray has no public switch for any of it. What a Ray does not have under these names, it starts as always.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

# What ray.init cannot be told. The node's agent may listen anywhere: of a port that another Ray here has it gives up
# after seconds. Nobody reads the copied logs of workers, or watches the size of this cluster.
SETTINGS = {"dashboard_agent_listen_port": 0, "include_log_monitor": False, "no_monitor": True}
AUTOSCALER = {"try_trigger_scaling", "on_executor_shutdown", "get_total_resources"}

_sessions: set[str] = set()  # addresses


@contextmanager
def starting() -> Iterator[None]:
    """Let `ray.init` start a Ray as `SETTINGS` say, without its API server, for which all would wait for a second."""
    from ray._private import node, parameter

    default = parameter.RayParams
    known = inspect.signature(default).parameters
    fewer = partial(default, **{name: value for name, value in SETTINGS.items() if name in known})

    def no_server(self: Any, **_: Any) -> None:
        self._webui_url = ""

    with replaced(parameter, RayParams=fewer), replaced(node.Node, start_api_server=no_server):
        yield
    _sessions.add(_address())


@contextmanager
def running() -> Iterator[None]:
    """Let Ray Data run without two actors of its own, in a session that was started here.

    One collects what a dashboard would show, the other asks an autoscaler for machines. Each imports Ray Data, for more
    than a second of the processor, while the first image waits for it.
    """
    with ExitStack() as stack:
        if _address() in _sessions:
            with suppress(ImportError):
                from ray.data._internal import stats

                stack.enter_context(replaced(stats, get_or_create_stats_actor=_Nobody))
            with suppress(ImportError):
                from ray.data._internal.execution import streaming_executor

                stack.enter_context(replaced(streaming_executor, create_cluster_autoscaler=_autoscaler()))
        yield


def _address() -> str:
    import ray

    return ray.get_runtime_context().gcs_address


@contextmanager
def replaced(place: Any, **others: Any) -> Iterator[None]:
    """Replace what a module or a class has under these names, for a while; None leaves it."""
    ours = {name: other for name, other in others.items() if other is not None and hasattr(place, name)}
    theirs = {name: getattr(place, name) for name in ours}
    try:
        for name, other in ours.items():
            setattr(place, name, other)
        yield
    finally:
        for name, other in theirs.items():
            setattr(place, name, other)


class _Nobody:
    """Takes what an actor would be told."""

    def __getattr__(self, name: str) -> _Nobody:
        return self

    def remote(self, *_: Any, **__: Any) -> None:
        """Forget it."""


def _autoscaler() -> Any:
    """Return what makes an autoscaler of a cluster that stays as it is; None where Ray wants more of one."""
    import ray
    from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
    from ray.data._internal.execution.interfaces.execution_options import ExecutionResources

    if set(ClusterAutoscaler.__abstractmethods__) != AUTOSCALER:
        return None

    class Fixed(ClusterAutoscaler):
        def __init__(self, *_: Any, **__: Any) -> None:
            self._total = ExecutionResources.from_resource_dict(ray.cluster_resources())

        def try_trigger_scaling(self) -> None:
            pass

        def on_executor_shutdown(self) -> None:
            pass

        def get_total_resources(self) -> Any:
            return self._total

    return Fixed
