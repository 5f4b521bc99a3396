"""The study of labels on images of which the truth is known."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sess_ray.cli import command
from sess_ray.io.maps import encode_map, quantize
from sess_ray.io.store import MAPS, Store
from studies import label_study

HEIGHT, WIDTH = 60, 80


@pytest.fixture
def folder(tmp_path):
    """Eight images, each with a red box on green that its map half finds; seed 4."""
    draw = np.random.default_rng(4)
    rows, lines = [], []
    for number in range(8):
        x0, y0 = draw.integers(8, 30), draw.integers(6, 20)
        x1, y1 = x0 + draw.integers(20, 36), y0 + draw.integers(16, 30)
        inside = np.zeros((HEIGHT, WIDTH), bool)
        inside[y0:y1, x0:x1] = True
        pixels = np.where(inside[..., None], (200, 60, 50), (60, 150, 70)) + draw.normal(0, 8, (HEIGHT, WIDTH, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        grid_y, grid_x = np.mgrid[:HEIGHT, :WIDTH]
        away = (grid_y - (y0 + y1) / 2 - draw.normal(0, 3)) ** 2 + (grid_x - (x0 + x1) / 2 - draw.normal(0, 3)) ** 2
        known = {"image_id": f"{number}.png", "uri": str(tmp_path / f"{number}.png"), "target": 3, "target_name": "box"}
        size = {"height": HEIGHT, "width": WIDTH, "peak_x": 0, "peak_y": 0, "num_patches": 1, "num_scored": 1}
        png = encode_map(quantize(np.exp(-away / (2 * 12**2))))
        rows.append({**known, **size, "score": number / 8, "num_kept": 1, "saliency": {"bytes": png, "path": None}})
        box = [int(edge) for edge in (x0, y0, x1, y1)]
        lines.append(json.dumps({"image_id": f"{number}.png", "objects": [{"label": "3", "box": box}]}))
    Store(str(tmp_path / "run")).write_table("maps", pa.Table.from_pylist(rows, MAPS))
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_it_chooses_on_one_half_and_measures_on_the_other(folder, capsys):
    arguments = ["--run", folder / "run", "--annotations", folder / "boxes.jsonl"]
    arguments += ["--backgrounds", 0.05, "--foregrounds", 0.6, 0.95, "--thresholds", 0.25]
    assert command.run(label_study.app, list(map(str, arguments))) == 0
    said = capsys.readouterr().out
    assert "8 maps of 8 images, 4 of 4 to choose on" in said
    assert said.count("GrabCut(background=0.05") == 3  # two that are tried, and the chosen one
    table = {cells[1].strip(): cells for line in said.splitlines() if len(cells := line.split("|")) > 6}
    assert [table[name][2].strip() for name in ("chosen on", "the other half", "all")] == ["4", "4", "8"]
    base, refined, gain = (float(table["all"][column].split()[0]) for column in (4, 5, 6))
    assert refined > 90
    assert gain == pytest.approx(refined - base, abs=0.11)
    assert "from 0.5 " in said
