"""What pytest-xdist's workers are given: all of Ray to one, and the rest to both."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT, starts_ray


@pytest.mark.parametrize(
    ("file", "ray"),
    [
        ("tests/test_data.py", True),
        ("tests/cli/test_explain.py", True),
        ("tests/infra/test_rayjob.py", True),
        ("tests/test_windows.py", False),
        ("sess_ray/windows.py", False),  # its doctests
    ],
)
def test_files_are_told_by_whether_they_start_ray(file, ray):
    assert starts_ray(file) == ray


def test_doctests_use_no_ray():
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "sess_ray").rglob("*.py")]
    assert not [file for file in files if starts_ray(file)]
