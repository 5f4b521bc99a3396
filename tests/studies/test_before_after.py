"""The picture of what today's defaults changed."""

from __future__ import annotations

import pytest
from PIL import Image

from studies import before_after


@pytest.mark.slow
def test_every_image_is_there_before_and_today_with_its_walls(tmp_path, capsys):
    output = tmp_path / "walls.jpg"
    assert before_after.sheet(before_after.SheetConfig(output=str(output), num_scales=4, tile=40)) == 0
    rows = Image.open(output)
    assert rows.height == 3 * 44
    means = [float(line.split("mean ")[1]) for line in capsys.readouterr().out.splitlines()]
    before, today = means
    assert before > today
