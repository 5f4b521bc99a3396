"""Reports that Ray's tasks sum up."""

from __future__ import annotations

import pytest

from sess_ray.access import Access
from sess_ray.errors import SessError
from sess_ray.io.store import Store
from sess_ray.pipeline.cluster.calls import Here, Tasks, got
from sess_ray.pipeline.evaluate import pairing, results
from sess_ray.pipeline.evaluate.config import EvaluateConfig
from sess_ray.pipeline.evaluate.job import callers
from sess_ray.pipeline.evaluate.results import grouped
from tests.pipeline.evaluate.made import METRICS, reading, rows, told

pytestmark = pytest.mark.usefixtures("ray_session")


def test_tasks_say_the_same_to_the_last_bit(monkeypatch):
    monkeypatch.setattr(pairing, "PARTITION_ROWS", 100)
    runs = {"base": rows(1), "other": rows(2, count=90)}
    groups = {name: reading(own, 17, 60) for name, own in runs.items()}
    assert told(groups, Tasks(Access())) == told({name: reading(own) for name, own in runs.items()})


def test_many_files_are_summed_up_by_tasks_and_a_damaged_one_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "GROUP_FILES", 2)
    store, config = Store(str(tmp_path)), EvaluateConfig(run=(), output=str(tmp_path))
    for number, group in enumerate(reading(rows(1), rows_of_files=30)):
        [table] = group(["image_id", "target", "label", "size", *METRICS])
        store.replace_table("results/base", f"{number}", table)
    found = {"base": grouped(store, "base")}
    call = callers(config, found)
    assert (len(found["base"]), type(call)) == (2, Tasks)
    assert type(callers(config, {"base": found["base"][:1]})) is Here
    assert type(callers(config, {})) is Here
    parts = call.split(2, divmod, 7, 3)
    call.wait(parts)
    assert [got(part) for part in (*parts, *call.split(1, sorted, [5]), call(sum, [1, 2]))] == [2, 1, 5, 3]
    (tmp_path / "results" / "base" / "3.parquet").write_bytes(b"PAR1")
    with pytest.raises(SessError, match=r"3.parquet is damaged \(") as told_of:
        told({"base": found["base"], "other": found["base"]}, call)
    assert "\n" not in str(told_of.value)
