"""Rows of a Dataset of the user's own, without Ray: what is to be explained of each."""

from __future__ import annotations

import pyarrow as pa
import pytest

import sess_ray.data
from sess_ray import SessError
from sess_ray.pipeline.explain.cells import decode_cells
from tests.pipeline.explain.jobs import picture


def asked(targets, **columns):
    table = pa.table({"image": [picture(number) for number in range(3)], **columns})
    rows = [row for found in decode_cells(table, "image", None, targets, 10**6, None) for row in found.to_pylist()]
    return [row["error"] or row["top"] or row["names"] for row in rows]


def test_targets_may_be_a_function_of_the_row():
    def wanted(row):
        assert "image" not in row
        return {"cat": ["tabby", 282], "any": "p>0.5"}[row["kind"]]

    assert asked(wanted, kind=["cat", "any", "cow"]) == [["tabby", "282"], "p>0.5", "KeyError: 'cow'"]
    assert asked(lambda row: 7 if row["n"] else None, n=[1, 0, 2]) == [["7"], "targets gives none for the row", ["7"]]
    assert asked(lambda row: str(len(row))) == [["0"]] * 3
    assert asked("top2", n=[1, 2, 3]) == ["top2"] * 3


def test_a_function_beside_a_column_is_refused():
    class Dataset:
        def schema(self, **_):
            return None

    with pytest.raises(SessError, match="targets is a function, and target_column 'label': give one of them"):
        sess_ray.data.explain(Dataset(), "tests.fragile:model", target_column="label", targets=len, num_scales=1)
