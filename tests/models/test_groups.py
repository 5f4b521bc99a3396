"""Targets that mean several classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sess_ray
from sess_ray import SESS, SessError, methods
from sess_ray.metrics.perturbation import Deletion, at_input_size
from sess_ray.models import wordnet
from sess_ray.models.groups import meaning
from tests import nets
from tests.methods.quick import QUICK, crops, net_of

MEMBERS = (1, 2, 4)  # of five classes
REST = (0, 3)


class Summed(nn.Module):
    """Two classes: `MEMBERS` together, and the rest. Its softmax gives them the sums of a softmax of all."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        logits = self.base(x)
        return torch.stack([logits[:, list(classes)].logsumexp(1) for classes in (MEMBERS, REST)], 1)


def explained(module, layer, method, images, targets, **settings):
    model = sess_ray.load_model(module, layer=layer, input_size=nets.SIDE)
    unchecked = methods.Method(method.name, method.family, method.function)  # a sum is no linear classifier, for cam
    few = {**QUICK, "augmented_gradcam": {"samples": 3, "aggregation": "mean"}}  # its optimiser enlarges last digits
    options = {"method_options": few.get(method.name), "num_scales": 2, "device": "cpu", **settings}
    return SESS(model, method=unchecked, **options).explain(images, targets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "windows"),
    [
        # Excitation backprop starts at each class; Finer-CAM compares with the classes outside, which a sum has not.
        *((name, "all") for name in methods.names() if name not in ("excitation_backprop", "finercam")),
        *((name, "guided") for name in ("gradcam", "gradient", "groupcam", "augmented_gradcam")),
    ],
)
def test_as_a_model_whose_head_sums_them(name, windows, photographs):
    method = methods.get(name)
    images = crops(photographs, count=2)
    settings = {"pre_filter_ratio": 0.4} | ({"windows": "guided", "whole_scales": 1} if windows == "guided" else {})
    net, layer = net_of(name)
    # In one batch with other targets, and with another group.
    targets = [[{"several": MEMBERS}, 3], [{"two": (0, 1)}, {"several": MEMBERS}]]
    [[ours, single], [_, other]] = explained(net, layer, method, images, targets, **settings)
    [[theirs], [theirs_too]] = explained(Summed(net), f"base.{layer}", method, images, [[0], [0]], **settings)
    assert ours.target_classes == MEMBERS
    assert single.target_classes == (3,)
    for group, summed in ((ours, theirs), (other, theirs_too)):
        assert group.saliency.any()
        assert group.score == pytest.approx(summed.score, abs=1e-6)
        scored = summed.patches["scored"]
        np.testing.assert_array_equal(group.patches["scored"], scored)
        np.testing.assert_allclose(group.patches["score"][scored], summed.patches["score"][scored], atol=1e-6)
        assert (group.patches["kept"] == summed.patches["kept"]).all()
        assert abs(group.saliency - summed.saliency).max() < 1e-5


def test_excitation_backprop_starts_at_each_class_with_its_share():
    model, module = nets.small()
    patches = nets.patches(3)
    grouped = model.with_groups({"several": MEMBERS})
    function = methods.get("excitation_backprop").function
    found = function(grouped, patches, torch.tensor([5, 3, 5]))
    shares = module(patches.double())[:, list(MEMBERS)].softmax(1)
    parts = [function(model, patches, torch.full((3,), target)) for target in MEMBERS]
    mean = sum(share[:, None, None] * part for share, part in zip(shares.T, parts, strict=True))
    torch.testing.assert_close(found[[0, 2]], mean.float()[[0, 2]], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1:2], function(model, patches[1:2], torch.tensor([3])))


def test_probabilities_logits_and_shares_are_those_of_the_sum():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).mul_(4)
    model = nets.small()[0].with_groups({"several": MEMBERS, "two": (0, 1)})
    targets = torch.tensor([5, 6, 3, 5, 0, 6])
    members = [MEMBERS, (0, 1), (3,), MEMBERS, (0,), (0, 1)]
    found = model.probabilities(logits)
    assert found.shape == (6, 7)
    recorded = logits.clone().requires_grad_()
    own = model.logit_of(recorded, targets)
    (gradients,) = torch.autograd.grad(own.sum(), recorded)
    own = own.detach()
    shares = model.shares(logits, targets)
    for row, (target, classes) in enumerate(zip(targets.tolist(), members, strict=True)):
        powers = logits[row].exp()
        total = powers[list(classes)].sum()
        share = torch.tensor([float(powers[c] / total) if c in classes else 0.0 for c in range(5)])
        assert float(found[row, target]) == pytest.approx(float(total / powers.sum()), rel=1e-6)
        assert float(own[row]) == pytest.approx(float(total.log()), rel=1e-6)
        torch.testing.assert_close(gradients[row].float(), share, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(shares[row], share, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_gradient_of_squeezenets_head_is_autograds(precision):
    loaded = sess_ray.load_model("squeezenet1_1", weights="random")
    with torch.no_grad():  # so that shares differ, and with the patch
        loaded.module.classifier[1].weight.mul_(20)
    model = loaded.prepared(torch.device("cpu"), precision).with_groups({"dog": range(151, 269), "two": (3, 700)})
    patches = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(model.probe().dtype)
    targets = torch.tensor([1000, 7, 1001, 1000])
    tap = model.tap(patches)
    found = tap.gradients(targets)
    some = tap.gradients(targets, torch.tensor([3, 1]))
    module = loaded.module.eval()
    activations = tap.activations.detach().clone().requires_grad_()
    logits = module.classifier(activations).flatten(1)
    members = [list(range(151, 269)), [7], [3, 700], list(range(151, 269))]
    total = sum(logits[row, classes].logsumexp(0) for row, classes in enumerate(members))
    (wanted,) = torch.autograd.grad(total, activations)
    tolerance = {"fp32": 1e-5, "bf16": 0.05}[precision] * float(wanted.abs().max())
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)
    torch.testing.assert_close(some, wanted[[3, 1]], rtol=0, atol=tolerance)


def test_insertion_and_deletion_ask_for_the_sum(photographs):
    [image] = crops(photographs, count=1)
    net = nets.Small(scale=15)
    values = []
    for module, layer, target in ((net, "third", {"several": MEMBERS}), (Summed(net), "base.third", 0)):
        sess = SESS(sess_ray.load_model(module, layer=layer, input_size=nets.SIDE), num_scales=None, device="cpu")
        [[found]] = sess.explain([image], [[target]])
        pixels, saliency = at_input_size(image, found.saliency, sess.model)
        values.append(Deletion().ask(sess.model, pixels, saliency, found.target, key="one"))
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert 0 < values[0] < 1


def test_what_is_predicted_is_a_class(photographs):
    [image] = crops(photographs, count=1)
    model = sess_ray.load_model(nets.Small(), layer="third", input_size=nets.SIDE).with_groups({"most": range(4)})
    sess = SESS(model, num_scales=None, device="cpu")
    [five] = sess.explain([image], "top9")
    assert sorted(found.target for found in five) == [0, 1, 2, 3, 4]
    [[found]] = sess.explain([image], [{"all": range(5)}])
    assert found.score == pytest.approx(1)
    assert found.predicted == five[0].target
    assert found.target_name == "all"


def test_a_group_is_told_by_its_classes():
    model = nets.small()[0].with_groups({"a": (2, 1, 2), "b": (1, 2), "one": [3]})
    assert [(group.name, group.classes) for group in model.groups] == [("a", (1, 2))]
    assert model.with_groups({"c": ["1", 2]}).groups == model.groups
    assert [model.target_of(classes) for classes in ((2, 1), (3,))] == [5, 3]
    assert [model.classes_of(target) for target in (5, 3)] == [(1, 2), (3,)]
    assert model.target_name(5) == "a"
    assert model.target_index(5) == 5
    with pytest.raises(SessError, match="class 6 is out of range"):
        model.target_index(6)
    with pytest.raises(SessError, match="group 'none' has no classes"):
        model.with_groups({"none": ()})
    with pytest.raises(SessError, match="class 7 is out of range"):
        model.with_groups({"seven": (1, 7)})


def test_targets_in_words(lite0):
    assert meaning("dog=151-268+275", lite0) == ("dog", (*range(151, 269), 275))
    assert meaning(" pets = tabby + n02084071 ", lite0) == ("pets", (*range(151, 269), 281))
    assert meaning("Tabby", lite0) == ("tabby", (281,))
    assert meaning("281", lite0) == ("tabby", (281,))
    assert meaning("dog", lite0) == ("dog", tuple(range(151, 269)))
    assert meaning("n02084071", lite0)[1] == tuple(range(151, 269))
    wrong = {
        "car": "WordNet has 2 nodes named 'car': use an id, n02958343 .10 classes. or n02959942 .2 classes.",
        "crane": "2 classes named 'crane'",
        "151-268": "give these classes a name, such as dog=151-268",
        "dog=268-151": "range 268-151 is empty",
        "dog=151-1268": "class 1268 is out of range",
        "dog=": "write NAME=CLASSES",
        "=3": "write NAME=CLASSES",
        "dog=unicorn": "unknown class 'unicorn'",
    }
    for text, message in wrong.items():
        with pytest.raises(SessError, match=message):
            meaning(text, lite0)


def test_nodes_of_wordnet_are_for_imagenets_classes_alone():
    small = nets.small()[0]
    with pytest.raises(SessError, match="class names of Small are unknown"):
        meaning("dog", small)
    table = (Path(wordnet.__file__).parent / "wordnet.tsv").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in table
    nodes = {node for found in wordnet._nodes().values() for node in found}
    assert all(1 < len(node.classes) < 1000 and max(node.classes) < 1000 for node in nodes)
