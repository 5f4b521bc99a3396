"""Maps stay what they were: those of photographs, kept in the repository, under all settings that matter."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.maps import KEPT, SETTINGS, maps


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_maps_stay_what_they_were(name, lite0, photographs):
    """All six photographs by Grad-CAM as it is called most; two of unlike sizes by the rest, which costs more."""
    if name != "gradcam":
        photographs = {photograph: photographs[photograph] for photograph in ("chelsea.png", "rocket.jpg")}
    with np.load(KEPT) as kept:
        for key, found in maps(lite0, photographs, name):
            # In levels of 255; another processor rounds otherwise, so a level may be the next one.
            difference = np.abs(found.astype(int) - kept[key])
            assert difference.max() <= 2, key
            assert difference.mean() <= 0.05, key
