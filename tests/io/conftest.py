"""Folders to read from."""

from __future__ import annotations

import fsspec
import pytest


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """Write files into a folder and return its URL."""
    url = str(tmp_path) if request.param == "local" else f"memory://annotations/{tmp_path.name}"

    def write(files):
        for name, content in files.items():
            with fsspec.open(f"{url}/{name}", "wb", auto_mkdir=True) as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        return url

    return write
