"""What Prometheus would scrape of a run is what run.json says."""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from sess_ray.pipeline.explain.config import ExplainConfig
from sess_ray.pipeline.explain.job import run
from sess_ray.pipeline.explain.metering import METRICS, STAGES, exported
from sess_ray.pipeline.explain.prepare import prepare

SECONDS = 60
REPORTED = 2  # seconds after which a worker's metrics are at the endpoint (tests/conftest.py)


def scrape(ray):
    """Return the sums of our metrics over all workers of the node, by name and stage."""
    [node] = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    found = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in map(exported, METRICS):
                found[sample.name, sample.labels.get("stage", "")] += sample.value
    return found


def settled(ray):
    """Return what is scraped when it changes no more: other tests of the session are metered too."""
    before = None
    while (now := scrape(ray)) != before:
        before = now
        time.sleep(REPORTED)
    return now


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 200, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:100])
    (folder / "empty.jpg").write_bytes(b"")
    manifest = tmp_path / "m.jsonl"
    uris = [*sorted(folder.iterdir()), tmp_path / "missing.png"]
    manifest.write_text("\n".join(json.dumps({"uri": str(uri)}) for uri in uris))
    return manifest


def test_the_endpoint_says_what_run_json_says(ray_session, images, tmp_path):
    before = settled(ray_session)
    output = tmp_path / "out"
    seen = []
    config = ExplainConfig(
        input=str(images),
        output=str(output),
        model="tests.fragile:model",
        targets="top2",
        num_scales=2,
        overlays=0,
        actors="1",
    )
    summary = run(prepare(config), lambda _: seen.append(True))
    record = json.loads((output / "run.json").read_text())
    assert seen
    done = record["this_run"]
    expected = {
        ("ray_sess_images_total", ""): done["images"],
        ("ray_sess_maps_total", ""): done["maps"],
        ("ray_sess_errors_total", "decode"): 2,
        ("ray_sess_errors_total", "read"): 1,
        ("ray_sess_patches_scored_total", ""): done["windows"],
        ("ray_sess_patches_kept_total", ""): summary.kept,
    }
    assert (done["images"], done["maps"], done["errors"]) == (6, 12, 3)
    assert record["share_kept"] == pytest.approx(summary.kept / summary.patches)
    deadline = time.monotonic() + SECONDS
    while True:
        found = scrape(ray_session) - before
        spent = {stage: found["ray_sess_stage_seconds_total", stage] for stage in STAGES}
        counts = {key: found[key] for key in expected}
        if (counts == expected and all(spent.values())) or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert counts == expected
    assert spent["explain"] == pytest.approx(record["actor_seconds"], abs=0.01)
    assert all(0 < seconds < 60 for seconds in spent.values())
    assert scrape(ray_session)["ray_sess_running", ""] == 0
