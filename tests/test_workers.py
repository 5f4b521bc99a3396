"""What pytest-xdist's workers are given: the shared session to one, whole clusters and the rest to both."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT, starts_ray


@pytest.mark.parametrize(
    ("file", "started"),
    [
        ("tests/test_data.py", "session"),
        ("tests/cli/test_explain.py", "session"),
        ("tests/infra/test_rayjob.py", "own"),
        ("tests/test_windows.py", ""),
        ("sess_ray/windows.py", ""),  # its doctests
    ],
)
def test_files_are_told_by_what_they_start_of_ray(file, started):
    assert starts_ray(file) == started


def test_doctests_use_no_ray():
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "sess_ray").rglob("*.py")]
    assert not [file for file in files if starts_ray(file)]
