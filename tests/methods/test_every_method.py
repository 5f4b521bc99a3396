"""What holds for every method of the registry."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import sess_ray
from sess_ray import SESS, methods
from sess_ray.methods.registry import GIVEN, GIVEN_T
from sess_ray.tables import markdown
from tests import nets
from tests.methods.quick import OTHERS, QUICK, crops, other

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Extremal perturbation takes seconds, however few its steps.
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "extremal_perturbation" else []) for name in methods.names()
]
DRAWS_NUMBERS = ["smoothgrad", "smooth_gradcam++", "sscam", "rise", "augmented_gradcam"]


@pytest.fixture(scope="module")
def model():
    # Decided, so that what is the difference of two scores stands out of their rounding.
    return sess_ray.load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)


def explain(model, name, images, targets, **settings):
    sess = SESS(model, method=name, num_scales=2, device="cpu", method_options=QUICK.get(name), **settings)
    return [explanation.saliency for found in sess.explain(images, targets) for explanation in found]


def model_of(name, model):
    refused = methods.get(name).refusal(model.prepared(torch.device("cpu"), "fp32")) is not None
    assert refused == (name in OTHERS)
    if not refused:
        return model
    module, layer = other(name)
    return sess_ray.load_model(module, layer=layer, input_size=nets.SIDE)


def count_passes(model):
    """Return a list that grows by the patches of each pass."""
    passed = []
    for network in filter(None, (model.module, model.fused)):
        network.register_forward_hook(lambda _, __, logits: passed.append(len(logits)))
    return passed


def fewer(name):
    """Return options that leave out most steps of a long optimisation, and how many times as many it takes."""
    if name != "extremal_perturbation":
        return None, 1
    steps = inspect.signature(methods.get(name).function).parameters["steps"].default
    return {"steps": 10}, steps // 10


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_as_many_passes_as_it_says(name, photographs):
    # So many that no group of them is dead, for this net and class; thousands of passes that ask for none take few.
    channels = 6 if name == "rise" or methods.get(name).family == "R" else 128
    net = other(name)[0] if name in OTHERS else nets.Small(channels=channels, seed=4, scale=15)
    options, share = fewer(name)
    model = sess_ray.load_model(net, input_size=nets.SIDE)
    sess = SESS(model, method=name, num_scales=None, device="cpu", method_options=options)
    passed = count_passes(sess.model)
    sess.explain(crops(photographs, count=1), [[0]])
    beside = 1 + (channels // 32 if name == "ablationcam" else 0)  # one scores; the patch as it is, once in 32 channels
    assert (sum(passed) - beside) * share == methods.get(name).num_passes(channels)


@pytest.mark.parametrize("name", [name for name in methods.names() if "same_as" in methods.get(name).given])
def test_more_targets_take_no_more_passes(name, photographs, model):
    def passes(*classes):
        taken = model_of(name, model)
        sess = SESS(taken, method=name, num_scales=None, device="cpu", method_options=QUICK.get(name))
        passed = count_passes(sess.model)
        sess.explain(crops(photographs, count=2), [[3], [*classes]])
        return sum(passed)

    assert passes(0, 1, 4) == passes(0) > 2  # two score


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_map_alone_and_among_others(name, model, photographs):
    model = model_of(name, model)
    images = crops(photographs)
    targets = [[3], [1, 2], [0], [3, 1], [2]]
    together = explain(model, name, images, targets, batch_size=64, pre_filter_ratio=0.5)
    alone = [
        saliency
        for image, classes in zip(images, targets, strict=True)
        for saliency in explain(model, name, [image], [classes], batch_size=3, pre_filter_ratio=0.5)
    ]
    assert any(saliency.any() for saliency in together)
    for one, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, single, atol=1e-5)


@pytest.mark.parametrize("name", DRAWS_NUMBERS)
def test_the_seed_names_the_map(name, model, photographs):
    [image] = crops(photographs, 1)
    first, again, other = (
        explain(model, name, [image], [[3]], pre_filter_ratio=0.0, seed=seed)[0] for seed in (7, 7, 8)
    )
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 1e-5


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("what", ["a grey image", "a dead model"])
def test_nothing_to_see_is_never_nan(name, what, model):
    image = np.full((48, 64, 3), 128, np.uint8)
    if what == "a dead model":
        module, layer = other(name) if name in OTHERS else (nets.Small(), "third")
        dead = module if isinstance(module, nets.Small) else module.cells  # a check looks at the rest first
        for parameter in dead.parameters():
            parameter.data.zero_()
        model = sess_ray.load_model(module, layer=layer, input_size=nets.SIDE)
        image = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    else:
        model = model_of(name, model)
    for num_scales in (None, 2):
        sess = SESS(model, method=name, num_scales=num_scales, device="cpu", method_options=QUICK.get(name))
        [[found]] = sess.explain([image], [[3]])
        assert np.isfinite(found.saliency).all()
        assert 0 <= found.saliency.min() <= found.saliency.max() <= 1


@pytest.mark.parametrize("name", methods.names())
def test_every_method_says_what_it_is_and_what_it_costs(name):
    method = methods.get(name)
    assert method.summary.endswith((".", ":"))
    assert method.paper
    assert method.passes


def test_the_documents_show_the_table_of_the_registry_and_the_readme_its_methods():
    assert markdown(methods.table()) in (DOCS / "methods.md").read_text()
    families = {name: f"| {methods.get(name).family} |" for name in methods.names()}
    lines = (ROOT / "README.md").read_text().splitlines()
    assert not [name for name, family in families.items() if not any(f"`{name}`" in x and family in x for x in lines)]


def test_the_documents_say_what_a_method_is_given():
    told = (DOCS / "own.md").read_text()
    assert not [name for name in GIVEN | GIVEN_T if f"`{name}`" not in told]
