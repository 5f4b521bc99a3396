"""A tiny classifier of Hugging Face transformers through the whole job."""

from __future__ import annotations

import json

import pytest

from tests.models import huggingface_zoo as zoo
from tests.pipeline.explain.jobs import explain, rows

pytest.importorskip("transformers")
pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]


def test_a_folder_that_save_pretrained_wrote(tmp_path):
    (tmp_path / "images").mkdir()
    zoo.picture(48).save(tmp_path / "images" / "x.png")
    zoo.saved("vit", tmp_path / "vit")
    output = tmp_path / "out"
    with zoo.no_hub():
        summary = explain(
            input=f"{tmp_path}/images",
            output=str(output),
            model=f"hf:{tmp_path}/vit",
            num_scales=1,
            overlays=0,
            targets="sea otter, gull",
        )
    assert (summary.images, summary.maps, summary.errors) == (1, 2, 0)
    found = rows(output)
    assert [row["target_name"] for row in found] == ["sea otter", "gull"]
    assert all(0 <= row["score"] <= 1 and row["num_patches"] == 1 for row in found)
    assert "transformers" in json.loads((output / "started.json").read_text())["made_with"]
