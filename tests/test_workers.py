"""What pytest-xdist's workers are given: Ray's shared session to one, clusters to the next, and all else to both."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT, rays_of


@pytest.mark.parametrize(
    ("file", "ray"),
    [
        ("tests/test_data.py", "shared"),
        ("tests/cli/test_explain.py", "shared"),  # which starts some of its own, too
        ("tests/infra/test_rayjob.py", "own"),
        ("tests/test_windows.py", None),
        ("sess_ray/windows.py", None),  # its doctests
    ],
)
def test_files_are_told_by_the_ray_that_they_use(file, ray):
    assert rays_of(file) == ray


def test_doctests_use_no_ray():
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "sess_ray").rglob("*.py")]
    assert not [file for file in files if rays_of(file)]
