"""The picture at the top of the README."""

from __future__ import annotations

import pytest
from PIL import Image

from studies import demo_sheet


@pytest.mark.slow
def test_photographs_stand_beside_their_maps_of_the_class_that_is_named(tmp_path, capsys):
    output = tmp_path / "demo.png"
    images = "coffee.png,astronaut.png=space shuttle,chelsea.png"
    config = demo_sheet.SheetConfig(output=str(output), images=images, num_scales=2, tile=40)
    assert demo_sheet.sheet(config) == 0
    said = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["espresso", "space shuttle", "Egyptian cat"]
    sheet = Image.open(output)
    coffee = 60  # pixels that 600 x 400 are wide at a height of 40
    assert sheet.height == 2 * (40 + demo_sheet.LINE + demo_sheet.GAP)
    left, right = (sheet.crop((x, 0, x + coffee, 40)) for x in (0, coffee + demo_sheet.GAP))
    assert left.getpixel((coffee // 2, 20)) != right.getpixel((coffee // 2, 20))
