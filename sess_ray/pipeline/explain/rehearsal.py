"""One explanation before a job starts: what would fail for every image ends the job in one line."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sess_ray.access import one_line
from sess_ray.errors import SessError

if TYPE_CHECKING:
    from sess_ray.engine.sess import SESS

WINDOWS = 4
SECONDS = 3.0  # then the model has been asked often enough


class _Enough(BaseException):
    """Time is over. No Exception: a method of the user's own may catch those."""


def rehearse(sess: SESS) -> None:
    """Explain an image of noise that has some windows, all of them at once, with the engine of a job.

    A method that takes long is left after some seconds. What only a GPU can do is not refused where there is none.

    Parameters
    ----------
    sess : SESS
        It is left as it is.

    Raises
    ------
    SessError
        That says in one line what the model or the method did.
    """
    import numpy as np

    height, width = sess.model.sides
    few = {"num_scales": 1 if sess.num_scales else None, "step_size": None, "max_patches": WINDOWS}
    trial = sess.changed(**few, pre_filter_ratio=0.0, keep_maps=True)
    trial.model = replace(sess.model, original=None)  # as it is: to make a faster one takes longer than a trial
    image = np.random.default_rng(0).integers(0, 256, (height, WINDOWS * width, 3), np.uint8)
    end = time.monotonic() + SECONDS

    def watch(*_: object) -> None:
        if time.monotonic() > end:
            raise _Enough

    handle = trial.model.module.register_forward_pre_hook(watch)
    try:
        [[found, *_]] = trial.explain([image], "top1")
        if not np.isfinite(np.asarray(found.patch_maps)).all():
            raise SessError("its maps are not finite")
    except _Enough:
        return
    except Exception as error:
        told = one_line(error)
        if "cuda" in told.lower() and sess.device.type == "cpu":
            return
        raise SessError(f"{sess.method.name} with {sess.model.name} fails on a trial image: {told}") from error
    finally:
        handle.remove()
