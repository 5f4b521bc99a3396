"""The gallery as people use it: find, compare, judge and take away, by mouse and by keyboard."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from sess_ray import load_model
from sess_ray.io.inputs import list_images
from sess_ray.pipeline.explain.targets import resolve
from tests.pipeline.gallery.browsing import IMAGES, ids, opened, press, until, where


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def column(browser, number):
    cells = f"[...document.querySelectorAll('#table tbody td:nth-child({number})')]"
    return browser.execute_script(f"return {cells}.map((cell) => cell.textContent)")


def test_targets_of_an_image_share_a_card_and_metrics_say_which_run_is_better(browser, output):
    opened(browser, output, "search=08.png")
    [card] = browser.find_elements(By.TAG_NAME, "article")
    sections = card.find_elements(By.CSS_SELECTOR, "section h3")
    assert [section.text for section in sections] == [
        "pair: 13 %, as predicted",
        "<b>class 0</b>: 13 %, as predicted",
    ]
    assert len(card.find_elements(By.CSS_SELECTOR, "img[alt^=photograph]")) == 1
    told = [bold.text for bold in card.find_elements(By.CSS_SELECTOR, "section:first-of-type b")]
    assert told == ["pxap 0.133", "pxap 0.0667 (\u22120.0666)"]  # 8 / 60 to four digits, and half of it


def test_search_takes_words_of_files_and_classes(browser, output):
    opened(browser, output)
    press(browser, "/")
    one(browser, "[name=search]").send_keys("CLASS 2< 1")
    expected = [f"{number:02}.png" for number in range(2, IMAGES - 2, 4) if "1" in f"{number:02}"]
    until(lambda: [name for name in ids(browser) if name[0].isdigit()], expected)
    assert "search=CLASS+2" in browser.current_url


def test_a_brush_over_a_histogram_filters_and_a_click_takes_all_again(browser, output):
    opened(browser, output)
    box = one(browser, "[data-column=score]")
    browser.execute_script("arguments[0].scrollIntoView()", box)
    bars = box.find_element(By.TAG_NAME, "svg")
    width = bars.rect["width"]
    mouse = ActionChains(browser, duration=0)
    mouse.move_to_element(bars).click_and_hold().move_by_offset(int(width / 4), 0).release().perform()
    scores = np.arange(IMAGES) / IMAGES
    most = scores[-1]
    low, high = 0.5 * most, 0.5 * most + most * int(width / 4) / width
    # A pixel is half an image.
    shown = int(where(browser).split(" of ")[1].split()[0])
    assert shown == pytest.approx(((scores >= low) & (scores <= high)).sum(), abs=1)
    state = browser.current_url.partition("#")[2]
    assert state.startswith("between.score=0.49")
    opened(browser, output, state)
    assert int(where(browser).split(" of ")[1].split()[0]) == shown
    lit = "return document.querySelectorAll('[data-column=score] .lit[height]:not([height=\"0\"])').length"
    assert browser.execute_script(lit) < 15
    bars = one(browser, "[data-column=score] svg")
    browser.execute_script("arguments[0].scrollIntoView()", bars)
    ActionChains(browser, duration=0).move_to_element(bars).click().perform()
    until(lambda: where(browser), "1 to 24 of 60 images, 61 maps")
    [low, _] = browser.find_elements(By.CSS_SELECTOR, "[data-column=score] input")
    low.send_keys(Keys.END)  # the same by keyboard
    until(lambda: where(browser), "1 to 1 of 1 images, 1 of 61 maps")


def test_sizes_and_problems_are_filters(browser, output):
    opened(browser, output)
    Select(one(browser, "[name=problem]")).select_by_value("yes")
    until(lambda: sorted(ids(browser)), ["57.png", "gone.png"])
    Select(one(browser, "[name=problem]")).select_by_value("")
    assert [option.text for option in Select(one(browser, "[name=size]")).options] == [
        "all",
        "< 5 % of the image",
        "5 to 25 % of the image",
        "> 25 % of the image",
    ]
    Select(one(browser, "[name=size]")).select_by_visible_text(
        "> 25 % of the image"
    )  # 300 of 1,200 pixels are not more
    until(lambda: where(browser), "no map passes the filters")


def test_classes_and_confusions_lead_to_their_images(browser, output):
    opened(browser, output)
    one(browser, "#view-classes").click()
    until(lambda: len(column(browser, 1)), 5)
    means = {f"<b>class {target}</b>": np.arange(target, IMAGES, 4).mean() / IMAGES for target in range(4)} | {
        "pair": 8 / IMAGES
    }
    assert column(browser, 1) == sorted(means, key=means.get)
    assert [float(cell) for cell in column(browser, 5)] == [
        pytest.approx(value, abs=2e-3) for value in sorted(means.values())
    ]
    one(browser, "#view-confusions").click()
    until(lambda: column(browser, 2), ["5", "5", "5", "5"])
    assert "view=confusions" in browser.current_url
    pair = next(
        button for button in browser.find_elements(By.CSS_SELECTOR, "#table button") if "class 3" in button.text
    )
    assert pair.text == "<b>class 3</b> → class 9"
    pair.click()
    until(lambda: ids(browser), [f"{number:02}.png" for number in (3, 15, 27, 39, 51)])
    one(browser, "#clear").click()
    until(lambda: where(browser), "1 to 24 of 60 images, 61 maps")


def test_tags_are_kept_and_what_is_shown_is_a_manifest(browser, output, tmp_path):
    opened(browser, output, "search=08.png")
    for section, key in zip(browser.find_elements(By.CSS_SELECTOR, "section.map"), "23", strict=True):
        section.find_element(By.TAG_NAME, "button").send_keys(key)
    opened(browser, output, "search=03.png")
    ActionChains(browser).move_to_element(one(browser, "section.map")).send_keys("2").perform()
    until(lambda: one(browser, "section.map .tag").text, "bad")
    opened(browser, output, "tag=bad")  # another page, another day
    until(lambda: sorted(ids(browser)), ["03.png", "08.png"])
    script = "const [done] = arguments; gallery.tags.manifest(gallery.filters.rows()).then(done)"
    text = browser.execute_async_script(script)
    assert [json.loads(line)["targets"] for line in text.splitlines()] == [["3"], ["pair=5+6"]]
    (tmp_path / "selection.jsonl").write_text(text)
    items = list_images(str(tmp_path / "selection.jsonl"))
    model = load_model("squeezenet1_1", "random")
    tasks = resolve(items, "auto", model).to_pylist()
    assert [Path(task["uri"]).name for task in tasks] == ["03.png", "08.png"]
    assert tasks[0]["targets"] == [[3]]
    assert [task["error"] for task in tasks] == [None, None]
    opened(browser, output, "tag=bad")
    for section in browser.find_elements(By.CSS_SELECTOR, "section.map"):
        section.find_element(By.TAG_NAME, "button").send_keys("2")
    Select(one(browser, "[name=tag]")).select_by_value("any tag")
    until(lambda: where(browser), "1 to 1 of 1 images, 1 of 61 maps")
    one(browser, "section.map button").send_keys("3")
    names = one(browser, "#tagnames")
    names.clear()
    names.send_keys("a, <b>", Keys.TAB)
    assert "1 a · 2 <b>" in one(browser, "#tagkeys").text
    names.clear()
    names.send_keys("good, bad, look again", Keys.TAB)


def test_one_run_takes_the_place_of_the_other_while_a_key_is_held(browser, output):
    opened(browser, output)
    heat = one(browser, "figure[data-other] .heat")
    assert heat.get_attribute("src").split("/")[-2] == "0"
    ActionChains(browser).key_down("b").perform()
    assert heat.get_attribute("src").split("/")[-2] == "1"
    ActionChains(browser).key_up("b").perform()
    assert heat.get_attribute("src").split("/")[-2] == "0"


def test_the_large_view_zooms_pans_and_reads_the_map(browser, output):
    opened(browser, output, "search=05.png")
    one(browser, "section.map").click()
    until(lambda: one(browser, "#large").is_displayed(), True)
    stack = browser.find_elements(By.CSS_SELECTOR, "#large .stack")[1]
    width, height = stack.rect["width"], stack.rect["height"]
    source = one(browser, "#large .heat").get_attribute("src")
    levels = np.asarray(Image.open(source.removeprefix("file://")))
    x, y = 27, 11  # of 40 x 32 pixels
    across, down = (x + 0.5) / 40 * width - width / 2, (y + 0.5) / levels.shape[0] * height - height / 2
    ActionChains(browser, duration=0).move_to_element_with_offset(stack, int(across), int(down)).perform()
    reading = one(browser, ".reading")
    value = f"{levels[y, x] / 255:.2f}"
    until(lambda: reading.text, f"x {x}, y {y} · sess {value} · base {value}")  # odd images have equal maps
    browser.find_element(By.TAG_NAME, "body").send_keys("+")
    until(lambda: one(browser, "#large").get_attribute("data-zoom"), "1.25")
    ActionChains(browser, duration=0).move_to_element_with_offset(stack, 0, 1).move_by_offset(0, -1).perform()
    middle = reading.text
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    ActionChains(browser, duration=0).move_by_offset(0, 1).move_by_offset(0, -1).perform()
    assert reading.text != middle
    browser.find_element(By.TAG_NAME, "body").send_keys("0")
    until(lambda: one(browser, "#large").get_attribute("data-zoom"), "1.00")
    assert "map=" in browser.current_url
    state = browser.current_url.partition("#")[2]
    one(browser, "#large").send_keys(Keys.ESCAPE)
    until(lambda: "map=" in browser.current_url, False)
    opened(browser, output, state)
    until(lambda: "05.png" in one(browser, "#large").text, True)
    one(browser, "#large").send_keys(Keys.ESCAPE)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("state", ["", "view=classes", "map=3"])
def test_a_screen_reader_and_weak_eyes_find_their_way(browser, output, state, theme):
    if find_spec("axe_core_python") is None:
        pytest.skip("needs axe-core: uv sync --extra dev")
    from axe_core_python.selenium import Axe

    opened(browser, output, f"{state}&theme={theme}")
    found = Axe().run(browser)["violations"]
    assert [(entry["id"], [node["html"] for node in entry["nodes"]][:3]) for entry in found] == []


def test_a_telephone_shows_all_of_it(browser, output):
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, output)
        page = browser.execute_script("return document.documentElement.scrollWidth")
        picture = one(browser, ".heat").rect["width"]
        assert page <= 400
        assert picture > 150
        assert not one(browser, "[name=search]").is_displayed()
        one(browser, "summary").click()
        one(browser, "[name=search]").send_keys("08.png")
        until(lambda: ids(browser), ["08.png"])
        one(browser, "section.map").click()
        until(lambda: one(browser, "#large").is_displayed(), True)
        assert browser.execute_script("return document.getElementById('large').scrollWidth") <= 400
        one(browser, "#large").send_keys(Keys.ESCAPE)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
