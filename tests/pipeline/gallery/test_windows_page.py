"""The page of every window of one image."""

from __future__ import annotations

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from sess_ray.cli import command, gallery
from tests.pipeline.gallery.browsing import opened

pytestmark = pytest.mark.usefixtures("ray_session")


def test_every_window_of_an_image(browser, tmp_path, photographs):
    Image.fromarray(photographs["coffee.png"]).resize((300, 200)).save(tmp_path / "cup <b>.png")
    arguments = [
        "--image",
        tmp_path / "cup <b>.png",
        "--target",
        "espresso",
        "--num-scales",
        3,
        "--output",
        tmp_path / "out",
    ]
    assert command.run(gallery.app, list(map(str, arguments))) == 0
    browser.get_log("browser")  # of other pages
    opened(browser, tmp_path / "out")
    assert browser.find_element(By.ID, "title").text.startswith("cup <b>.png: espresso, ")
    tiles = browser.find_elements(By.CLASS_NAME, "tile")
    assert len(tiles) == 2 + 4 + 6
    assert [entry.text for entry in browser.find_elements(By.CSS_SELECTOR, "#scales h2")] == [
        "scale 0: 336 x 224, 2 windows",
        "scale 1: 432 x 288, 4 windows",
        "scale 2: 528 x 352, 6 windows",
    ]
    kept, slider = browser.find_element(By.ID, "kept"), browser.find_element(By.NAME, "step")
    fused = browser.find_element(By.CSS_SELECTOR, ".fused .heat")
    shown = {}
    slider.send_keys(Keys.HOME)
    for _ in range(20):
        count = int(kept.text.split()[0])
        assert len(browser.find_elements(By.CSS_SELECTOR, ".tile.kept")) == count
        shown[count] = fused.get_attribute("src")
        slider.send_keys(Keys.ARROW_RIGHT)
    assert list(shown) == [1, 2, 3, 4, 5, 7, 9, 12]
    assert len(set(shown.values())) == len(shown)
    slider.send_keys(Keys.HOME)
    browser.find_element(By.NAME, "dropped").click()
    assert [tile.is_displayed() for tile in tiles].count(True) == 1
    assert browser.get_log("browser") == []
