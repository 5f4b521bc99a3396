"""Models of transformers whose input is not square."""

from __future__ import annotations

import types

import pytest

import sess_ray
from sess_ray import SessError
from sess_ray.models import huggingface
from tests.models import huggingface_zoo as zoo

transformers = pytest.importorskip("transformers")
# To import transformers alone takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_hub")]


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_an_input_that_is_not_square(kind, tmp_path):
    zoo.saved(kind, tmp_path, **({"image_size": [32, 64]} if kind == "vit" else {}))
    transformers.ViTImageProcessor(size={"height": 32, "width": 64}).save_pretrained(tmp_path)
    model = sess_ray.load_model(f"hf:{tmp_path}")
    assert model.input_size == (32, 64)
    [[found]] = sess_ray.SESS(model, num_scales=1, device="cpu").explain([zoo.picture(64)])
    assert found.saliency.std() > 0
    if kind == "resnet":
        assert sess_ray.load_model(f"hf:{tmp_path}", input_size=64).input_size == 64
    else:
        with pytest.raises(SessError, match="does not take N x 3 x 64 x 64 images"):
            sess_ray.load_model(f"hf:{tmp_path}", input_size=64)


def test_a_size_that_a_configuration_names():
    named = [huggingface.image_size(types.SimpleNamespace(image_size=size)) for size in (32, [32], [32, 32], (32, 64))]
    assert named == [32, 32, 32, (32, 64)]
    assert huggingface.image_size(None) is None
