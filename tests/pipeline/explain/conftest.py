"""Images to explain."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def good(tmp_path_factory, photographs):
    """Three photographs in two folders named by their classes."""
    root = tmp_path_factory.mktemp("good")
    for name, label in (("chelsea.png", "tabby"), ("coffee.png", "espresso"), ("rocket.jpg", "missile")):
        (root / label).mkdir()
        Image.fromarray(photographs[name]).resize((320, 240)).save(root / label / Path(name).with_suffix(".jpg"))
    return root
