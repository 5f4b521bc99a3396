"""What is done with a gallery in a browser, and what is in it."""

from __future__ import annotations

import time

from selenium.webdriver.common.by import By

from sess_ray.io.store import Store
from sess_ray.pipeline.gallery.job import blocks, draw, write_pages

HOSTILE = '"><img src=x onerror="document.title=1">.png'
IMAGES = 60  # three pages
COUNT = IMAGES + 1  # of maps: one image has two


def write(gallery):
    """Write a gallery as its job does, by the same stages in this process."""
    places = [Store(url).location for url in gallery.config.runs().values()]
    tables = (draw(table, gallery.config.access(), places, gallery.store.location) for table in blocks(gallery))
    write_pages(gallery, (row for parts in tables for part in parts for row in part.to_pylist()))


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


def until(found, expected, seconds=10):
    """Wait until a function returns what is expected; it is what is asserted."""
    deadline = time.monotonic() + seconds
    while (value := found()) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert value == expected


def ids(browser):
    texts = "return [...document.querySelectorAll('article h2')].map((heading) => heading.textContent)"
    return browser.execute_script(texts)  # at once, while the page may change


def where(browser):
    return browser.find_element(By.ID, "place").text


def press(browser, key, page=None):
    browser.find_element(By.TAG_NAME, "body").send_keys(key)
    settled(browser, page)
