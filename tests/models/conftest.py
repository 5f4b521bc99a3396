"""What the tests of models share."""

from __future__ import annotations

import pytest

from tests.models import huggingface_zoo as zoo


@pytest.fixture(scope="module")
def no_hub():
    """Load models of transformers from folders alone."""
    pytest.importorskip("transformers")
    with zoo.no_hub():
        yield
