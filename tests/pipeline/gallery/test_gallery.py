"""The gallery, made by the job and opened from the disk in a browser."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from sess_ray.cli import command, gallery
from sess_ray.io.maps import encode_map
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.gallery import pages
from sess_ray.pipeline.gallery.config import GalleryConfig
from sess_ray.pipeline.gallery.prepare import prepare

pytestmark = pytest.mark.usefixtures("ray_session")

HOSTILE = '"><img src=x onerror="document.title=1">.png'
COUNT = 60  # of rows, three pages


def drawn(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Two runs of 60 images, one of which has a name that attacks and one of which is gone, and a gallery of them."""
    root = tmp_path_factory.mktemp("gallery")
    (root / "images").mkdir()
    names = [f"{number:02}.png" for number in range(COUNT - 2)] + [HOSTILE, "gone.png"]
    lines = []
    for run in ("sess", "base"):
        rows = []
        for number, name in enumerate(names):
            height, width = 30 + number % 3, 40
            if name != "gone.png" and run == "sess":
                Image.new("RGB", (width, height), (number, 90, 200)).save(root / "images" / name)
            levels = drawn(number if number % 2 else [number, int(run == "base")], height, width)
            target = number % 4
            facts = {"image_id": name, "uri": str(root / "images" / name), "target": target, "height": height}
            facts |= {"width": width, "target_name": f"<b>class {target}</b>", "score": number / COUNT}
            facts |= {"predicted": target if number % 3 else 9, "peak_x": 10, "peak_y": 15, "num_patches": 5}
            png = b"no picture" if (number, run) == (57, "base") else encode_map(levels)
            rows.append({**facts, "num_scored": 4, "num_kept": 2, "saliency": {"bytes": png, "path": None}})
            lines.append(json.dumps({"image_id": name, "objects": [{"label": "<i>thing</i>", "box": [4, 3, 24, 18]}]}))
        for part in (rows[:25], rows[25:] if run == "sess" else rows[25:-1]):
            Store(str(root / run)).write_table("maps", pa.Table.from_pylist(part, MAPS))
    (root / "boxes.jsonl").write_text("\n".join(lines[:COUNT]))
    arguments = ["--run", f"sess={root}/sess", "--run", f"base={root}/base", "--output", root / "out"]
    assert command.run(gallery.app, [*map(str, arguments), "--annotations", f"{root}/boxes.jsonl"]) == 0
    return root / "out"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    places = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in places:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = places[0]
    quiet = ("disable-background-networking", "disable-component-update", "disable-sync", "no-first-run")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "window-size=1400,900", *quiet):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(places[1]))
    with closing(driver):
        yield driver
    driver.quit()


def opened(browser, folder, state=""):
    browser.get("about:blank")
    begin = time.perf_counter()
    browser.get(f"{(folder / 'index.html').as_uri()}#{state}")
    settled(browser, "0" if "page" not in state else None)
    return time.perf_counter() - begin


def settled(browser, page=None):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = browser.execute_script("return document.body.dataset.drawn")
        if found is not None and page in (None, found):
            return
        time.sleep(0.02)
    raise AssertionError(f"page {page} does not come: {browser.get_log('browser')}")


def ids(browser):
    return [heading.text for heading in browser.find_elements(By.CSS_SELECTOR, "article h2")]


def where(browser):
    return browser.find_element(By.ID, "place").text


def press(browser, key, page=None):
    browser.find_element(By.TAG_NAME, "body").send_keys(key)
    settled(browser, page)


def test_maps_lie_over_their_images_and_the_slider_fades_them(browser, output):
    opened(browser, output)
    assert where(browser) == "1 to 24 of 60"
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
    assert where(browser) == "25 to 48 of 60"
    assert not set(before) & set(ids(browser))
    press(browser, Keys.END, "2")
    assert where(browser) == "49 to 60 of 60"
    press(browser, Keys.ARROW_RIGHT)
    assert where(browser) == "49 to 60 of 60"
    assert "page=2" in browser.current_url
    [*_, damaged, last] = browser.find_elements(By.TAG_NAME, "article")
    assert "sess: 2 of 5 windows" in damaged.text
    assert "base: no map" in damaged.text
    assert "cannot read" in last.text or "FileNotFoundError" in last.text
    assert "base: no map" in last.text
    last.send_keys(Keys.ENTER)
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
    deadline = time.monotonic() + 5
    while "of 20" not in where(browser) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert where(browser) == "1 to 20 of 20 (of 60)"
    Select(browser.find_element(By.NAME, "target")).select_by_visible_text("<b>class 2</b>")
    Select(browser.find_element(By.NAME, "order")).select_by_visible_text("score, lowest first")
    expected = [f"{number:02}.png" for number in range(58) if number % 3 == 0 and number % 4 == 2]
    while ids(browser) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ids(browser) == expected
    state = browser.current_url.partition("#")[2]
    opened(browser, output, state)
    assert ids(browser) == expected
    opened(browser, output, "order=3")  # odd images have equal maps
    assert all(int(name[:2]) % 2 == 0 for name in ids(browser) if name[0].isdigit())


def test_names_run_nothing(browser, output):
    opened(browser, output)
    browser.find_elements(By.TAG_NAME, "article")[0].click()
    time.sleep(0.3)
    assert HOSTILE in browser.find_element(By.ID, "large").text
    assert browser.title == "Saliency maps"
    assert browser.find_elements(By.CSS_SELECTOR, "b, i, img[src=x]") == []
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
    facts |= {"target": draw.integers(0, 1000, count).tolist(), "predicted": draw.integers(0, 1000, count).tolist()}
    measured = {"run": "a", "metric": "overall_rise", "better": "higher", "values": values}
    store.write(
        "data/index.js", pages.index({**facts, "score": values, "disagreement": values, "metrics": [measured] * 4})
    )
    for name, content in pages.page("gallery").items():
        store.write(name, content)
    assert opened(browser, tmp_path) < 4
    assert where(browser) == "1 to 24 of 100000"
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


def test_disagreement_is_one_less_correlation():
    one = np.array([[0, 1], [2, 3]], np.uint8)
    assert pages.disagreement([one, 2 * one]) == pytest.approx(0)
    assert pages.disagreement([one, one, 3 - one]) == pytest.approx(2)
    assert pages.disagreement([one, np.full((2, 2), 7, np.uint8)]) == pytest.approx(1)
    assert pages.disagreement([one]) is None
    assert pages.disagreement([one, np.zeros((3, 2), np.uint8)]) is None
    three = np.array([[5, 1], [0, 4]], np.uint8)
    assert pages.disagreement([one, three]) == pytest.approx(1 - np.corrcoef(one.ravel(), three.ravel())[0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to show: give --run NAME=OUTPUT"),
        (["--run", "a=x", "--image", "y"], "give either --run or --image"),
        (["--image", "nowhere.jpg"], "cannot read nowhere.jpg: FileNotFoundError"),
        (["--run", "out"], "--run out: use NAME=OUTPUT"),
        (["--run", "a=nowhere"], "--run nowhere has no maps"),
        (["--run", "a=x", "--run", "a=y"], "two runs have the same name"),
        (["--run", "a=x", "--limit", "0"], "--limit 0: use 1 or more"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, tmp_path, capsys):
    assert command.run(gallery.app, [*arguments, "--output", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_gallery_is_replaced_on_request_only(output, capsys):
    runs = ["--run", f"sess={output.parent}/sess", "--limit", "3"]
    assert command.run(gallery.app, [*runs, "--output", str(output.parent / "small")]) == 0
    assert command.run(gallery.app, [*runs, "--output", str(output.parent / "small")]) == 2
    assert "has a gallery already: add --overwrite" in capsys.readouterr().err
    config = GalleryConfig(run=(f"sess={output.parent}/sess",), output=str(output.parent / "small"), overwrite=True)
    assert len(prepare(config).rows) == COUNT


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


@pytest.mark.parametrize("name", ["gallery", "patches"])
def test_the_files_of_a_page_come_with_the_package(name):
    files = pages.page(name)
    assert list(files) == ["page/gallery.css", f"page/{name}.js", "index.html"]
    assert b"@" not in files["index.html"]  # every place is filled
