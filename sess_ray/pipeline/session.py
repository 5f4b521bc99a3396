"""Connecting to Ray, or starting it inside this process."""

from __future__ import annotations

import logging
import os

# Read when ray is imported. Under `uv run`, Ray would have every worker build a second environment of its own; workers
# of the embedded Ray use the driver's.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

SPARE_CPUS = 2  # for reading and writing, beside the actors: without them the plan waits for itself


def connect(address: str | None) -> None:
    """Connect to a cluster, or start Ray on this machine for this process alone.

    Parameters
    ----------
    address : str or None
        Of a cluster; None takes ``RAY_ADDRESS``, which `ray job submit` sets, and else starts Ray here. A session that
        is already there is used as it is.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the embedded Ray listens to this machine alone
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.data import DataContext

    if not ray.is_initialized():
        if address:
            ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
        else:
            ray.init(
                address="local",
                num_cpus=(os.cpu_count() or 1) + SPARE_CPUS,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # says that its bars are off
