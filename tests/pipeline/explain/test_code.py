"""Which lines of code make maps, and so which changes a resumed run refuses."""

from __future__ import annotations

import shutil

import pytest

from sess_ray.pipeline.explain.code import MAKERS, PACKAGE, code_sha256


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, whose lines may be changed."""
    place = tmp_path_factory.mktemp("copy") / "sess_ray"
    shutil.copytree(PACKAGE, place, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "method", "matters"),
    [
        ("engine/fusion.py", "cam", True),
        ("engine/sess.py", "cam", True),
        ("windows.py", "cam", True),
        ("resampling.py", "cam", True),
        ("blur.py", "cam", True),
        ("io/decode.py", "cam", True),
        ("io/maps.py", "cam", True),
        ("models/layers.py", "cam", True),
        ("methods/cam.py", "cam", True),
        ("methods/passes.py", "perturbation", True),
        ("methods/perturbation.py", "perturbation", True),
        ("methods/perturbation.py", "cam", False),
        ("pictures/overlay.py", "cam", False),
        ("pictures/plots.py", "cam", False),
        ("pipeline/gallery/job.py", "cam", False),
        ("cli/explain.py", "cam", False),
        ("metrics/suite.py", "cam", False),
        ("io/store.py", "cam", False),
        ("__init__.py", "cam", False),
    ],
)
def test_only_changed_code_that_makes_maps_counts(package, file, method, matters):
    def code():
        code_sha256.cache_clear()
        return code_sha256(f"sess_ray.methods.{method}", package=package)

    path = package / file
    before, source = code(), path.read_text()
    assert before == code_sha256(f"sess_ray.methods.{method}")  # wherever the package lies
    path.write_text(f"{source}\nCHANGED = 1\n")
    assert (code() != before) == matters
    path.write_text(source)


def test_a_module_that_the_engine_begins_to_import_counts(package):
    fusion, new = package / "engine" / "fusion.py", package / "engine" / "new.py"
    source = fusion.read_text()
    fusion.write_text(f"{source}\nfrom . import new\n")
    found = []
    for text in ("ONE = 1\n", "ONE = 2\n"):
        new.write_text(text)
        code_sha256.cache_clear()
        found.append(code_sha256(package=package))
    fusion.write_text(source)
    assert len(set(found)) == 2


def test_every_entry_is_there():
    assert all(PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py").is_file() for name in MAKERS)
