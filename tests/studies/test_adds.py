"""The tables of what SESS adds: of rows, and of real maps."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray import SESS
from sess_ray.metrics import walls
from studies import adds, adds_tables
from studies.annotated import Thing


@pytest.mark.slow
def test_a_row_says_what_changes_and_groups_are_targets(real_squeezenet, photographs):
    pixels = photographs["chelsea.png"]
    things = [Thing("cat", (281, 282), np.array([[60, 0, 420, 299]])), Thing("mug", (504,), np.array([[0, 0, 9, 9]]))]
    assert [thing.target for thing in things] == [{"cat": (281, 282)}, 504]
    settings = {"device": "cpu", "keep_maps": True}
    engines = {
        arm: SESS(real_squeezenet, num_scales=scales, **settings) for arm, scales in (("base", None), ("sess", 2))
    }
    rows = adds.added(engines, pixels, things, smooth=0.0)
    facts = {"kind": "adds", "data": "boxes", "model": "m", "method": "gradcam", "image": "a.jpg"}
    [entry] = adds_tables.summaries([facts | row for row in rows])
    for name in ("pxap", "energy_pointing_game", "insertion_rise"):
        for arm in ("base", "before", "sess"):
            assert entry[name][arm]["mean"] == pytest.approx(100 * np.mean([row[arm][name] for row in rows]), abs=1e-3)
        means = {arm: told["mean"] for arm, told in entry[name].items()}
        assert means["difference"] == pytest.approx(means["sess"] - means["base"], abs=2e-3)
        assert means["difference to before"] == pytest.approx(means["sess"] - means["before"], abs=2e-3)
    text = "\n".join(adds_tables.tables_of([entry], []))
    assert "| m | gradcam | 2 | " in text
    assert "mask_iou" not in text


@pytest.mark.slow
def test_what_was_before_is_what_the_engine_makes_so(real_squeezenet, photographs):
    pixels = photographs["coffee.png"]
    for method, options in (("gradcam", {}), ("groupcam", {"groups": 2})):
        shared = {"method": method, "method_options": options, "num_scales": 3, "device": "cpu"}
        [[now]] = SESS(real_squeezenet, **shared, keep_maps=True).explain([pixels], [[967]])
        [[old]] = SESS(real_squeezenet, **shared, pre_filter_ratio=0.9, fade=0.0).explain([pixels], [[967]])
        before, few = adds.as_before(now)
        np.testing.assert_allclose(before.saliency, old.saliency, atol=1e-5)
        assert (few == old.patches["kept"]).all()
        rows = adds.walled(
            SESS(real_squeezenet, **shared, keep_maps=True), pixels, [Thing("cup", (967,), np.zeros((1, 4)))]
        )
        assert rows[0]["now"] == pytest.approx(walls(now.saliency, now.plan, now.patches["kept"]))
        assert rows[0]["before"] == pytest.approx(walls(old.saliency, old.plan, old.patches["kept"]), rel=1e-3)
