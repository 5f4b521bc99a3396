"""Models whose maps are measured."""

from __future__ import annotations

import pytest

from tests import nets


@pytest.fixture(scope="module")
def small():
    return nets.small()
