from __future__ import annotations

import pytest

from tests.faults.bench import draw_images
from tests.infra.files import ROOT
from tests.infra.runs import IMAGES


@pytest.fixture
def place(tmp_path):
    """Where a head is started: what the image holds there, and a bucket's images."""
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    draw_images(tmp_path / "images", IMAGES)
    return tmp_path
