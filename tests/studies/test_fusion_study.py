from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sess_ray import SESS, load_model
from sess_ray.cli import command
from sess_ray.engine.explanation import PATCH_DTYPE
from sess_ray.engine.fusion import finish
from sess_ray.windows import sess_plan
from studies import fusion_study
from tests import nets


@pytest.mark.parametrize("ratio", [0.0, 0.8])
def test_seamless_of_the_study_is_that_of_the_engine(photographs, ratio):
    model = load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)
    sess = SESS(model, num_scales=4, pre_filter_ratio=ratio, keep_maps=True, device="cpu")
    for pixels in (photographs["chelsea.png"][:90, :140], photographs["coffee.png"][:130, :70]):
        [[explanation]] = sess.explain([pixels], [[2]])
        windows = fusion_study.windows_of(explanation, torch.zeros(pixels.shape[:2]))
        total = fusion_study.seamless(windows)
        found = finish(lambda top, bottom, total=total: total[top:bottom], torch.empty_like(total))
        np.testing.assert_allclose(found, explanation.saliency, atol=1e-5)


def test_what_scores_weigh():
    """One scale of two windows side by side, of scores 0.2 and 0.6; their maps are alike."""
    plan = sess_plan(4, 8, 4, 1, 4)
    [scale] = plan.scales
    assert scale.num_windows == 2
    maps = np.array([[[0.0, 1.0]], [[0.0, 1.0]]], np.float32).repeat(2, 1)
    patches = np.zeros(2, PATCH_DTYPE)
    patches["score"], patches["kept"] = (0.2, 0.6), True
    windows = fusion_study.windows_of(SimpleNamespace(plan=plan, patches=patches, patch_maps=maps), torch.zeros(4, 8))
    for fuse, expected in (("seamless", 3), ("squared scores", 9), ("without scores", 1)):
        peaks = fusion_study.VARIANTS[fuse](windows).view(4, 2, 4).amax((0, 2))
        assert float(peaks[1] / peaks[0]) == pytest.approx(expected)


@pytest.mark.slow
def test_a_study_is_a_table_of_all_variants(tmp_path, photographs, capsys):
    from PIL import Image

    for name in ("cat.png", "dog.png"):
        Image.fromarray(photographs["chelsea.png"][:200, :260]).save(tmp_path / name)
    (tmp_path / "bad.png").write_text("no image")
    annotations = tmp_path / "labels.json"
    boxes = {"cat.png": [10, 10, 200, 150], "dog.png": [900, 900, 950, 950], "bad.png": [0, 0, 9, 9]}
    annotations.write_text(
        json.dumps([{"file": name, "class_index": 281, "boxes": [box]} for name, box in boxes.items()])
    )
    given = ["--input", tmp_path, "--annotations", annotations, "--num-scales", 1]
    assert command.run(fusion_study.app, list(map(str, given))) == 0
    told, left_out = capsys.readouterr()
    assert [line.split(":")[1].split(",")[0].strip() for line in left_out.splitlines()] == ["bad.png", "dog.png"]
    assert "1 maps, r = 0\n" in told
    assert "| overall" in told
    assert all(f"| {name} " in told for name in fusion_study.VARIANTS)
    assert command.run(fusion_study.app, [*map(str, given), "--no-perturbation", "--limit", "1"]) == 0
    assert "insertion" not in capsys.readouterr().out
    assert command.run(fusion_study.app, []) == 2
    assert "a study needs --input and --annotations" in capsys.readouterr().err
