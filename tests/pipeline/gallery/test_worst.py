"""The ten worst maps of a class, three of them tagged, taken away and explained again: the tutorial, step by step."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from sess_ray.cli import main
from sess_ray.pipeline.gallery.config import GalleryConfig
from sess_ray.pipeline.gallery.prepare import prepare
from sess_ray.runs import open_run
from tests.pipeline.explain.inside import stay_here
from tests.pipeline.gallery.browsing import ids, opened, until, where, write

ROOT = Path(__file__).parents[3]
PART = (ROOT / "docs" / "tutorial.md").read_text().partition("## The ten worst")[2].partition("\n## ")[0]
STEPS = re.findall(r"^\d+\. (.*?)(?=^\d+\. |\Z)", PART, re.MULTILINE | re.DOTALL)
PAGE = "".join(path.read_text() for path in (ROOT / "sess_ray" / "pipeline" / "gallery" / "page").iterdir())


def choose(browser, name, text):
    Select(browser.find_element(By.NAME, name)).select_by_visible_text(text)


def test_the_steps_name_what_is_on_the_page():
    named = re.findall(r"\*\*(.+?)\*\*", PART)
    assert len(STEPS) == 7
    assert len(named) >= 6
    assert not [name for name in named if name not in PAGE]


def test_the_ten_worst_are_found_tagged_taken_away_and_explained_again(browser, output, tmp_path, monkeypatch):
    opened(browser, output)
    # 1 to 3: class, order, the first ten
    choose(browser, "target", "<b>class 1</b>")
    choose(browser, "order", "worst pxap of sess")
    until(lambda: where(browser), "1 to 15 of 15 images, 15 of 61 maps")
    worst = ids(browser)[:10]
    assert worst == [f"{number:02}.png" for number in range(1, 41, 4)]  # its fixture gives the n-th image n / 60
    # 4: three tags, by mouse and keyboard
    for place in (0, 2, 5):
        card = browser.find_elements(By.CSS_SELECTOR, "section.map")[place]
        ActionChains(browser, duration=0).scroll_to_element(card).move_to_element(card).send_keys("2").perform()
        until(lambda card=card: card.find_element(By.CSS_SELECTOR, ".tag").text, "bad")
    # 5: these alone
    choose(browser, "tag", "bad")
    tagged = [worst[place] for place in (0, 2, 5)]
    until(lambda: ids(browser), tagged)
    # 6: away with them
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    browser.find_element(By.ID, "save").click()
    deadline = time.monotonic() + 20
    while not (tmp_path / "selection.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    # 7: the page's own command, but for the model
    monkeypatch.chdir(tmp_path)
    stay_here(monkeypatch)
    [line] = re.findall(r"^ *(uv run .* sess-ray explain .*)$", PART, re.MULTILINE)
    given = shlex.split(line.partition("sess-ray explain ")[2])
    small = ["--model", "tests.fragile:model", "--num-scales", "1", "--overlays", "0", "--actors", "1"]
    assert main.run("explain", [*given, *small]) == 0
    again = open_run(given[given.index("--output") + 1])
    assert sorted((row.image_id, row.target) for row in again) == [(name, 1) for name in sorted(tagged)]
    runs = (f"sess={output.parent}/sess", f"again={again.url}")
    compared = prepare(GalleryConfig(run=runs, output=str(tmp_path / "compared"), limit=20))
    write(compared)
    opened(browser, tmp_path / "compared", "problem=no")
    until(lambda: sorted(ids(browser)), sorted(tagged[:2]))  # of the first twenty maps
