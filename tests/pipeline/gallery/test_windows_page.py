"""The page of every window of one image."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from sess_ray import demo, open_run
from sess_ray.cli import command, gallery
from sess_ray.pipeline.gallery.config import GalleryConfig
from sess_ray.pipeline.gallery.one_image import write_windows
from sess_ray.pipeline.gallery.prepare import prepare
from tests.pipeline.gallery.browsing import opened, until, write

OLD = str(Path(__file__).parents[2] / "golden" / "output-0.1.0")


def test_a_gallery_leads_to_the_windows_of_its_worst_maps_and_back(browser, tmp_path):
    """The run is EfficientNet-Lite0's, with two scales; its last map is the worst."""
    gallery = prepare(GalleryConfig(run=(f"old={OLD}",), output=str(tmp_path / "out"), window_pages=1))
    photographs = {item.image_id: item.uri for item in demo.images()}
    for row in gallery.rows:
        row["uri"] = photographs[row["image_id"]]
    gallery.metrics.append({"run": "old", "metric": "pxap", "better": "higher", "values": [0.2, None, 0.1]})
    write_windows(gallery, 1)
    write(gallery)
    worst = gallery.rows[2]
    assert [row.get("windows") is not None for row in gallery.rows] == [False, False, True]
    opened(browser, tmp_path / "out", "map=2&theme=dark")
    until(lambda: len(browser.find_elements(By.LINK_TEXT, "Windows of this map")), 1)
    browser.find_element(By.LINK_TEXT, "Windows of this map").click()
    until(lambda: browser.find_element(By.ID, "title").text.split(":")[0], worst["image_id"])
    maps = browser.find_elements(By.CSS_SELECTOR, ".tile")
    [stored] = [row for row in open_run(OLD) if row.image_id == worst["image_id"]]
    assert len(maps) == stored.num_patches
    browser.find_element(By.ID, "play").click()
    until(lambda: browser.find_element(By.ID, "kept").text.startswith(f"{len(maps)} of {len(maps)}"), True, 20)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".timeline li.kept")) == len(maps)
    browser.find_element(By.LINK_TEXT, "Back to the gallery").click()
    until(lambda: "theme=dark" in browser.current_url and "map=2" in browser.current_url, True)
    opened(browser, tmp_path / "out", "map=0")
    assert browser.find_elements(By.LINK_TEXT, "Windows of this map") == []


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
