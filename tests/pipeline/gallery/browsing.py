"""What is done with a gallery in a browser, and what is in it."""

from __future__ import annotations

import time

from selenium.webdriver.common.by import By

HOSTILE = '"><img src=x onerror="document.title=1">.png'
COUNT = 60  # of rows, three pages


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
