"""What an evaluation says of a run, for the jobs that come after it."""

from __future__ import annotations

import pyarrow as pa

from sess_ray.access import public
from sess_ray.errors import SessError, unknown
from sess_ray.io.store import Store


def results_of(evaluation: Store, run: str) -> pa.Table:
    """Return the rows of results/ of a run.

    Parameters
    ----------
    evaluation : Store
        The output of `sess_ray.pipeline.evaluate.job`.
    run : str
        The URL that was evaluated.

    Raises
    ------
    SessError
        If there is no evaluation, or it is not of this run, or could measure none of its maps.
    """
    record = evaluation.read_json("summary.json")
    if record is None:
        raise SessError(f"{public(evaluation.url)} has no summary.json: give the --output of sess-ray evaluate")
    pairs = (entry.partition("=") for entry in record["config"]["run"])
    names = {url.rstrip("/"): name for name, _, url in pairs}
    place = public(run).rstrip("/")
    if place not in names:
        raise unknown(f"run of the evaluation {public(evaluation.url)}", place, names)
    files = evaluation.tables(f"results/{names[place]}")
    if not files:
        raise SessError(f"the evaluation {public(evaluation.url)} could measure no map of {place}: see its problems/")
    return pa.concat_tables(evaluation.read_tables(files))
