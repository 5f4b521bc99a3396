"""The gallery, made by the job and opened from the disk in a browser."""

from __future__ import annotations

import time

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from sess_ray.io.store import Store
from sess_ray.pipeline.gallery import pages
from tests.pipeline.gallery.browsing import HOSTILE, ids, opened, press, until, where


def test_maps_lie_over_their_images_and_the_slider_fades_them(browser, output):
    opened(browser, output)
    assert where(browser) == "1 to 24 of 60 images, 61 maps"
    [first, *_] = browser.find_elements(By.TAG_NAME, "article")
    pictures = first.find_elements(By.TAG_NAME, "img")
    assert len(pictures) == 5  # the image alone, and under each of two maps
    loaded = "return arguments[0].complete && arguments[0].naturalWidth === 40"
    assert all(browser.execute_script(loaded, picture) for picture in pictures)
    heat = first.find_elements(By.CSS_SELECTOR, "img.heat")
    assert [picture.get_attribute("alt") for picture in heat] == [
        f"where {run} sees <b>class 2</b> in {HOSTILE}" for run in ("sess", "base")
    ]
    assert heat[0].value_of_css_property("opacity") == "0.6"
    slider = browser.find_element(By.NAME, "opacity")
    slider.send_keys(Keys.HOME)
    assert heat[0].value_of_css_property("opacity") == "0"
    press(browser, "+")
    assert heat[0].value_of_css_property("opacity") == "0.1"
    peak, stack = first.find_element(By.CLASS_NAME, "peak"), first.find_elements(By.CLASS_NAME, "stack")[1]
    middle = peak.rect["x"] + peak.rect["width"] / 2 - stack.rect["x"]
    assert middle / stack.rect["width"] == pytest.approx(10.5 / 40, abs=0.01)
    box = first.find_element(By.CLASS_NAME, "box")
    assert box.rect["width"] / stack.rect["width"] == pytest.approx(20 / 40, abs=0.01)
    browser.find_element(By.NAME, "marks").click()
    assert not peak.is_displayed()
    assert not box.is_displayed()


def test_the_keyboard_turns_pages_and_opens_maps(browser, output):
    opened(browser, output)
    before = ids(browser)
    press(browser, Keys.ARROW_RIGHT, "1")
    assert where(browser) == "25 to 48 of 60 images, 61 maps"
    assert not set(before) & set(ids(browser))
    press(browser, Keys.END, "2")
    assert where(browser) == "49 to 60 of 60 images, 61 maps"
    press(browser, Keys.ARROW_RIGHT)
    assert where(browser) == "49 to 60 of 60 images, 61 maps"
    assert "page=2" in browser.current_url
    [*_, damaged, last] = browser.find_elements(By.TAG_NAME, "article")
    assert "sess: 2 of 5 windows" in damaged.text
    assert "base: no map" in damaged.text
    assert "cannot read" in last.text or "no such file" in last.text
    assert "base: no map" in last.text
    last.find_element(By.CSS_SELECTOR, "section button").send_keys(Keys.ENTER)
    dialog = browser.find_element(By.ID, "large")
    deadline = time.monotonic() + 5
    while not dialog.is_displayed() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "gone.png" in dialog.text
    dialog.send_keys(Keys.ARROW_LEFT)
    while "57.png" not in dialog.text and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "57.png" in dialog.text
    dialog.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    press(browser, Keys.HOME, "0")
    assert ids(browser) == before


def test_filters_and_orders(browser, output):
    opened(browser, output)
    Select(browser.find_element(By.NAME, "correct")).select_by_visible_text("is another")
    until(lambda: where(browser), "1 to 20 of 20 images, 20 of 61 maps")
    Select(browser.find_element(By.NAME, "target")).select_by_visible_text("<b>class 2</b>")
    Select(browser.find_element(By.NAME, "order")).select_by_visible_text("score, lowest first")
    expected = [f"{number:02}.png" for number in range(58) if number % 3 == 0 and number % 4 == 2]
    until(lambda: ids(browser), expected)
    state = browser.current_url.partition("#")[2]
    opened(browser, output, state)
    assert ids(browser) == expected
    opened(browser, output, "order=3")  # odd images have equal maps
    assert all(int(name[:2]) % 2 == 0 for name in ids(browser) if name[0].isdigit())


def test_names_run_nothing(browser, output):
    opened(browser, output)
    browser.find_element(By.CSS_SELECTOR, "section.map").click()
    until(lambda: HOSTILE in browser.find_element(By.ID, "large").text, True)
    assert browser.title == "Saliency maps"
    assert browser.find_elements(By.CSS_SELECTOR, "b b, i, img[src=x]") == []
    attack = (
        "const i = new Image(); i.setAttribute('onerror', 'document.title = 1'); i.src = 'x'; document.body.append(i)"
    )
    browser.execute_script(attack)  # were it in the page after all, the page's policy would not run it
    time.sleep(0.3)
    assert browser.title == "Saliency maps"
    logged = [
        entry
        for entry in browser.get_log("browser")
        if "inline" not in entry["message"] and "/x" not in entry["message"]
    ]
    assert logged == []


def responds(browser, change, event):
    """Return how many milliseconds the page is busy, from a change of a filter to what is seen of it."""
    return browser.execute_async_script(
        f"""const [done] = arguments; const f = gallery.filters.field; const place = document.getElementById('place');
        const before = place.textContent; let began;
        new MutationObserver((_, o) => {{
          if (place.textContent === before) return;
          o.disconnect();
          requestAnimationFrame(() => done(performance.now() - began));
        }}).observe(place, {{childList: true, characterData: true, subtree: true}});
        const it = (() => {{ {change.rpartition(";")[0]}; return {change.rpartition(";")[2]}; }})();
        began = performance.now();
        it.dispatchEvent(new Event('{event}', {{bubbles: true}}));"""
    )


def test_a_hundred_thousand_rows_are_there_at_once(browser, tmp_path):
    """Interactive within 2 s and in 200 MB, as asked of the page; twice the time for a machine that is shared."""
    count, draw = 100_000, np.random.default_rng(0)
    store = Store(str(tmp_path))
    row = {
        "height": 30,
        "width": 40,
        "image": None,
        "error": "none",
        "uri": "s3://bucket/image",
        "boxes": [],
        "target": 1,
    }
    place = {"file": "none", "peak": [1, 2], "kept": 1, "patches": 9}
    for number in range(count // pages.ROWS):
        lines = [
            pages.as_json({**row, "id": f"folder/{number}-{line}.jpg", "maps": [place, place]})
            for line in range(pages.ROWS)
        ]
        store.write(f"data/{number}.js", pages.chunk(number, lines))
    values = [round(value, 4) for value in draw.random(count).tolist()]
    facts = {"count": count, "chunk": pages.ROWS, "runs": ["a", "b"], "names": {n: f"class {n}" for n in range(1000)}}
    facts |= {"ids": [f"folder/{n // 100}-{n % 100}.jpg" for n in range(count)], "image": list(range(count))}
    facts |= {"sizes": [["< 5 %", 0.05], ["> 5 %", 1.0]], "size": values, "problem": [False] * count, "groups": {}}
    facts |= {"target": draw.integers(0, 1000, count).tolist(), "predicted": draw.integers(0, 1000, count).tolist()}
    measured = {"run": "a", "metric": "overall_rise", "better": "higher", "values": values}
    store.write(
        "data/index.js", pages.index({**facts, "score": values, "disagreement": values, "metrics": [measured] * 4})
    )
    for name, content in pages.page("gallery").items():
        store.write(name, content)
    assert opened(browser, tmp_path) < 4
    assert where(browser) == "1 to 24 of 100000"
    assert responds(browser, "f.search.value = '77-5 class'; f.search", "input") < 1000
    assert responds(browser, "gallery.filters.ranges.set('score', [0.2, 0.4]); f.target", "change") < 1000
    browser.execute_script("document.getElementById('clear').click()")
    until(lambda: where(browser), "1 to 24 of 100000")
    begin = time.perf_counter()
    Select(browser.find_element(By.NAME, "order")).select_by_visible_text("worst overall_rise of a")
    while "order=4" not in browser.current_url and time.perf_counter() < begin + 10:
        time.sleep(0.02)
    assert time.perf_counter() - begin < 4
    worst = int(np.argmin(values))
    assert ids(browser)[0] == f"folder/{worst // pages.ROWS}-{worst % pages.ROWS}.jpg"
    browser.execute_cdp_cmd("Performance.enable", {})
    metrics = {
        entry["name"]: entry["value"] for entry in browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    }
    assert metrics["JSHeapUsedSize"] < 200e6
