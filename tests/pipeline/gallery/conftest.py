"""A browser, and a gallery to open."""

from __future__ import annotations

import json
import shutil
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from selenium import webdriver

from sess_ray.io.maps import encode_map
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.gallery.config import GalleryConfig
from sess_ray.pipeline.gallery.prepare import prepare
from tests.pipeline.gallery.browsing import HOSTILE, IMAGES, write


def drawn(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


@pytest.fixture(scope="session")
def output(tmp_path_factory):
    """Two runs of 60 images, and a gallery of them: one name attacks, one image is gone, and one has two targets."""
    root = tmp_path_factory.mktemp("gallery")
    (root / "images").mkdir()
    names = [f"{number:02}.png" for number in range(IMAGES - 2)] + [HOSTILE, "gone.png"]
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
            facts |= {"width": width, "target_name": f"<b>class {target}</b>", "score": number / IMAGES}
            facts |= {"predicted": target if number % 3 else 9, "peak_x": 10, "peak_y": 15, "num_patches": 5}
            png = b"no picture" if (number, run) == (57, "base") else encode_map(levels)
            rows.append({**facts, "num_scored": 4, "num_kept": 2, "saliency": {"bytes": png, "path": None}})
            if number == 8:
                pair = {"target": -1, "target_name": "pair", "target_classes": [5, 6], "predicted": 6}
                rows.append(rows[-1] | pair)
            lines.append(json.dumps({"image_id": name, "objects": [{"label": "<i>thing</i>", "box": [4, 3, 24, 18]}]}))
        results = [
            {
                "image_id": row["image_id"],
                "target": row["target"],
                "label": "",
                "pxap": row["score"] / (1 + (run == "base")),
            }
            for row in rows
        ]
        Store(str(root / "evaluation")).write_table(f"results/{run}", pa.Table.from_pylist(results))
        for part in (rows[:25], rows[25:] if run == "sess" else rows[25:-1]):
            Store(str(root / run)).write_table("maps", pa.Table.from_pylist(part, MAPS))
    (root / "boxes.jsonl").write_text("\n".join(lines[:IMAGES]))
    runs = [f"sess={root}/sess", f"base={root}/base"]
    (root / "evaluation" / "summary.json").write_text(json.dumps({"config": {"run": runs}}))
    settings = {"evaluation": str(root / "evaluation"), "annotations": str(root / "boxes.jsonl")}
    write(prepare(GalleryConfig(run=tuple(runs), output=str(root / "out"), **settings)))
    return root / "out"


@pytest.fixture(scope="session")
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
