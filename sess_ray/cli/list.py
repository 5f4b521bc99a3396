"""Write any input as a Parquet manifest; a run over it holds no image names in memory, however many there are."""

from __future__ import annotations

import shlex
import time
from typing import Annotated

from cyclopts import Parameter

from sess_ray.access import public
from sess_ray.cli import command
from sess_ray.pipeline.listing.config import ListConfig

app = command.command("sess-ray list", __doc__)
INTERRUPTED = "stopped: what is listed stays; the same command goes on"


@app.default
def main(
    config: Annotated[ListConfig, Parameter(name="*")] = ListConfig(),  # noqa: B008 - frozen
    *,
    config_file: command.ConfigFile = None,
) -> int:
    """List; return the exit code."""
    from sess_ray.pipeline.listing.job import prepare, run

    del config_file  # read by command.run, before the flags are
    begin = time.monotonic()
    job = prepare(config)
    known = job.progress.items
    if known:
        print(f"{command.counted(known, 'image')} listed already: going on after the last", flush=True)
    with command.progress("image") as progress:
        listed = run(job, progress)
    seconds = time.monotonic() - begin
    place = public(config.output)
    print(f"{place}: {command.counted(listed.rows, 'image')} in {seconds:.1f} s")
    if listed.failed:
        count = command.counted(listed.failed, "row")
        print(f"{count} without an image, which a run counts as errors; first: {listed.why}")
    print(f"explain: sess-ray explain --input {shlex.quote(place)}")
    return 0
