"""Some damaged inputs of each kind; many more are `python -m tests.faults.inputs`."""

from __future__ import annotations

import pytest

from tests.faults.inputs import KINDS, outcome, read_some

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_refused_or_read(tmp_path, kind):
    counts, wrong = read_some(tmp_path, kind, 40, seed=2026)
    assert wrong == []
    assert counts.total() == 40
    assert len(counts) > 1  # they are damaged, and not all beyond reading


def test_what_is_wrong_is_seen(tmp_path, monkeypatch):
    def hang(*_):
        raise TimeoutError("it hangs")

    monkeypatch.setattr("tests.faults.inputs.list_images", hang)
    _, wrong = read_some(tmp_path, "manifests", 2, seed=1)
    assert wrong == [f"manifests {number}: TimeoutError: it hangs" for number in range(2)]
    (tmp_path / "m.csv").write_text("nothing")
    with pytest.raises(TimeoutError):
        outcome(tmp_path / "m.csv", "manifests")
