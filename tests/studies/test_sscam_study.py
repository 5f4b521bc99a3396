from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from studies import sscam_study


def test_average_precision_counts_ties_together():
    saliency = np.array([[0.9, 0.5], [0.5, 0.1]])
    inside = np.array([[1, 1], [0, 0]])
    # At 0.9 one of one is inside, at 0.5 two of three: half of the recall at precision 1, half at 2/3.
    assert sscam_study.average_precision(saliency, inside) == pytest.approx((1 + 2 / 3) / 2)
    assert sscam_study.average_precision(1 - saliency, inside) == pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 4)


def test_every_way_to_weigh_noisy_scores():
    scores, alive = torch.tensor([[0.2, 0.6, 0.0], [0.4, 0.2, 0.0]]), torch.tensor([True, True, False])
    found = {way: sscam_study.weighed(scores, torch.tensor(0.1), alive, way).tolist() for way in sscam_study.WAYS}
    assert found["mean"] == pytest.approx([0.3, 0.4, 0])
    assert found["max"] == pytest.approx([0.4, 0.6, 0])
    assert found["mean - baseline"] == pytest.approx([0.2, 0.3, 0])
    assert found["max - baseline"] == pytest.approx([0.3, 0.5, 0])
    share = 1 / (1 + np.exp(-0.2))
    assert found["softmax of max"] == pytest.approx([1 - share, share, 0])


def test_boxes_are_drawn_where_the_image_is_seen(squeezenet):
    model = squeezenet.prepared(torch.device("cpu"), "fp32")
    patch, inside = sscam_study.one(Image.new("RGB", (448, 112), (124, 116, 104)), [[0, 56, 224, 112]], model)
    assert patch.shape == (1, 3, 224, 224)
    assert patch.abs().max() < 0.02  # the mean colour
    assert inside[112:, :112].all()
    assert inside.sum() == 112 * 112


def test_a_study_of_one_image_has_a_row_for_every_variant(tmp_path, capsys, monkeypatch):
    Image.new("RGB", (90, 60), (200, 30, 30)).save(tmp_path / "red.png")
    (tmp_path / "labels.json").write_text(
        json.dumps([{"file": "red.png", "class_index": 1, "boxes": [[0, 0, 45, 60]]}])
    )

    def maps(_model, _patch, target, stds, samples):
        assert (target, stds, samples) == (1, [0.1], 2)
        left = np.zeros((224, 224))
        left[:, :112] = 1
        return {"gradcam": 1 - left, "mask, std=0.1, softmax of max": left}

    monkeypatch.setattr(sscam_study, "maps", maps)
    assert sscam_study.main(tmp_path, weights="random", std=(0.1,)) == 0
    rows = [line.replace(" ", "").split("|")[1:4] for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert ["gradcam", "0.0", "50.0"] in rows
    assert ["mask,std=0.1,softmaxofmax", "100.0", "100.0"] in rows
