"""The wheel: what it holds, and that it runs from an empty folder with nothing else of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = Path(numpy.__file__).parents[1]  # where everything that sess-ray needs is installed


def output_of(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    output_of(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with this wheel, which finds the packages of ours but not the checkout."""
    home = tmp_path_factory.mktemp("environment")
    output_of(sys.executable, "-m", "venv", home)
    python = home / "bin" / "python"
    output_of(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel)
    [site] = home.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{PACKAGES}\n")
    return home / "bin"


def test_the_wheel_holds_package_licence_and_readme_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    package = {name for name in held if name.startswith("sess_ray/")}
    tracked = output_of("git", "ls-files", "--cached", "--others", "--exclude-standard", "sess_ray", cwd=ROOT)
    assert package == {name for name in tracked.splitlines() if (ROOT / name).exists()}
    assert {"sess_ray/py.typed", "sess_ray/pipeline/gallery/page/gallery.html"} <= package
    [info] = {name.split("/")[0] for name in held.keys() - package}
    assert held[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    metadata = held[f"{info}/METADATA"].decode()
    assert (ROOT / "README.md").read_text() in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Project-URL: Homepage, https://" in metadata


@pytest.mark.ray
def test_an_installed_command_explains_a_sample_image(environment, tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    settings = {"cwd": tmp_path, "env": clean}
    given = ["explain", "--limit", 1, "--num-scales", 1, "--output", "maps of one"]
    assert "1 image, 1 map, 0 errors" in output_of(environment / "sess-ray", *given, **settings)
    assert pq.read_table(tmp_path / "maps of one" / "maps").num_rows == 1
    version = output_of(environment / "python", "-m", "sess_ray", "--version", **settings)
    assert version == output_of(environment / "sess-ray", "--version", **settings)
    where = output_of(environment / "python", "-c", "import sess_ray; print(sess_ray.__file__)", **settings)
    assert Path(where.strip()).is_relative_to(environment.parent)
