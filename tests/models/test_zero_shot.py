"""Zero-shot models: tiny ones with random weights, whose prompts are their classes."""

from __future__ import annotations

import pytest
import torch
from ray import cloudpickle

import sess_ray
from sess_ray import SESS, SessError
from tests.models import huggingface_zoo as zoo
from tests.models.huggingface_zoo import normalised

transformers = pytest.importorskip("transformers")
# To import transformers alone takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_hub")]
PROMPTS = ["a dog", "two cat, sleeping", "a photo of a dog"]
ACTIVATIONS = {"clip": "softmax", "siglip": "sigmoid"}


@pytest.fixture(scope="module", params=ACTIVATIONS)
def encoders(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, *zoo.saved_encoders(request.param, folder)


def test_logits_are_those_of_the_library_by_hand(encoders):
    kind, folder, network, tokenizer, processor = encoders
    model = sess_ray.load_model(f"hf:{folder}", prompts=[f" {prompt} " for prompt in PROMPTS])
    padding = {"padding": "max_length", "max_length": 8} if kind == "siglip" else {"padding": True}
    image = zoo.picture(32)
    with torch.no_grad():
        expected = network(
            **tokenizer(PROMPTS, return_tensors="pt", **padding), **processor(images=image, return_tensors="pt")
        ).logits_per_image
    found = model.module(normalised(image, model.mean, model.std))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.01
    assert (model.classes, model.activation) == (tuple(PROMPTS), ACTIVATIONS[kind])
    assert model.class_index("two cat, sleeping") == 1
    assert model.layer.endswith("layers.1.layer_norm1")
    probabilities = model.probabilities(found)
    assert (probabilities.sum().item() == pytest.approx(1)) == (kind == "clip")


def test_an_activation_that_is_given_comes_before_the_models_own(encoders):
    kind, folder, *_ = encoders
    other = "sigmoid" if kind == "clip" else "softmax"
    assert sess_ray.load_model(f"hf:{folder}", prompts=PROMPTS, activation=other).activation == other


def test_what_scores_windows_sees_images_alone(encoders):
    kind, folder, network, *_ = encoders
    model = sess_ray.load_model(f"hf:{folder}", prompts=PROMPTS)
    assert not [name for name, _ in model.module.named_parameters() if "text" in name]
    assert sum(weight.numel() for weight in model.module.parameters()) < sum(w.numel() for w in network.parameters())
    again = cloudpickle.loads(cloudpickle.dumps(model))
    image = normalised(zoo.picture(32), model.mean, model.std)
    torch.testing.assert_close(again.module(image), model.module(image))
    assert kind in ACTIVATIONS


def test_the_maps_are_of_the_prompts(encoders):
    _, folder, *_ = encoders
    model = sess_ray.load_model(f"hf:{folder}", prompts=PROMPTS)
    [found] = SESS(model, num_scales=1, device="cpu").explain([zoo.picture(48)], [[0, 1]])
    assert [one.target_name for one in found] == PROMPTS[:2]
    assert all(one.saliency.std() > 0 for one in found)


def test_other_prompts_are_other_weights(encoders):
    _, folder, *_ = encoders
    first, second, third = (
        sess_ray.load_model(f"hf:{folder}", prompts=prompts).weights_sha256()
        for prompts in (PROMPTS, PROMPTS, [*PROMPTS[:2], "a cat"])
    )
    assert first == second != third


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("a dog; a cat", r"prompts are a list of texts, such as \['a dog', 'a cat'\]"),
        (None, "tells prompts apart: give --prompts FILE, or --targets"),
        ([" "], "tells prompts apart"),
        (["a dog"], "compares prompts, and 'a dog' is the only one: give another beside it"),
        (["a dog", "a dog "], "prompt 'a dog' is there twice"),
        (["a dog", "a " * 9], "has 10 tokens, and the model takes 8"),
    ],
)
def test_prompts_that_cannot_be_told_apart(encoders, prompts, message):
    _, folder, *_ = encoders
    with pytest.raises(SessError, match=message) as raised:
        sess_ray.load_model(f"hf:{folder}", prompts=prompts)
    assert "\n" not in str(raised.value)


def test_it_brings_its_own_weights(encoders):
    _, folder, *_ = encoders
    with pytest.raises(SessError, match="brings its own weights: leave --weights out"):
        sess_ray.load_model(f"hf:{folder}", "random", prompts=PROMPTS)


# --- open_clip ---


@pytest.fixture(scope="module", params=["clip", "siglip"])
def of_open_clip(request, tmp_path_factory):
    pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("open_clip")
    return request.param, folder, *zoo.saved_open_clip(request.param, folder)


def test_open_clips_logits(of_open_clip):
    kind, folder, network, tokenizer = of_open_clip
    model = sess_ray.load_model(f"open_clip:local-dir:{folder}", prompts=PROMPTS)
    images = normalised(zoo.picture(32), model.mean, model.std)
    with torch.no_grad():
        expected, _ = network.get_logits(images, tokenizer(PROMPTS))
    torch.testing.assert_close(model.module(images), expected, rtol=1e-5, atol=1e-5)
    assert (model.mean, model.input_size, model.activation) == ((0.4, 0.5, 0.6), 32, ACTIVATIONS[kind])
    assert model.layer.endswith("resblocks.1.ln_1")
    [[found]] = SESS(model, num_scales=1, device="cpu").explain([zoo.picture(48)], [[0]])
    assert found.target_name == "a dog"
    assert found.saliency.std() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-32", "say which weights, open_clip:ViT-B-32/TAG, such as"),
        ("ViT-B-32/nonsense", "'nonsense' is not a known tag"),
        ("nonsense/openai", "nonsense"),
        ("local-dir:/no/where", "not found: /no/where"),
        ("hf-hub:no/where", "cannot load open_clip:hf-hub:no/where"),
    ],
)
def test_what_open_clip_does_not_have(name, message, capfd):
    pytest.importorskip("open_clip")
    with pytest.raises(SessError, match=message) as raised:
        sess_ray.load_model(f"open_clip:{name}", prompts=PROMPTS)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""
