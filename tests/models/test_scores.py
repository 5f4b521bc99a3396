"""Probabilities of logits: softmax, sigmoid, or as they are; of classes and of groups."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sess_ray
from sess_ray import SessError
from tests import nets

GROUPS = {"several": (1, 2, 4), "two": (0, 1)}
MEMBERS = {0: (0,), 3: (3,), 5: (1, 2, 4), 6: (0, 1)}
KINDS = ("softmax", "sigmoid", "none")


def derived(activation, row, members):
    """Return the probability and the logit of a target in float64, from the row's logits."""
    if activation == "softmax":
        powers = row.exp()
        return powers[members].sum() / powers.sum(), powers[members].sum().log()
    if activation == "sigmoid":
        absent = torch.ones((), dtype=torch.float64)
        for member in members:
            absent = absent * (1 - 1 / (1 + (-row[member]).exp()))
        return 1 - absent, ((1 - absent) / absent).log()
    return row[members].max(), row[members].max()


@pytest.mark.parametrize("activation", KINDS)
def test_probabilities_logits_and_shares_are_the_definitions(activation):
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).mul_(4)
    model = replace(nets.small()[0].with_groups(GROUPS), activation=activation)
    found = model.probabilities(logits)
    assert found.shape == (4, 7)
    for target, members in MEMBERS.items():
        recorded = logits.clone().requires_grad_()
        wanted = [derived(activation, row, list(members)) for row in recorded]
        probability, logit = (torch.stack(values) for values in zip(*wanted, strict=True))
        (share,) = torch.autograd.grad(logit.sum(), recorded)
        torch.testing.assert_close(found[:, target], probability.detach().float(), rtol=1e-5, atol=1e-7)
        targets = torch.full((4,), target)
        told = model.log_probability_of(logits, targets)
        least = 1e-6 if activation == "none" else 0
        torch.testing.assert_close(told, probability.detach().clamp(min=least).log().float(), rtol=1e-4, atol=1e-5)
        own = logits.clone().requires_grad_()
        ours = model.logit_of(own, targets)
        (gradient,) = torch.autograd.grad(ours.sum(), own)
        torch.testing.assert_close(ours.detach().double(), logit.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, share, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(model.shares(logits, targets), share.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("far", [-200.0, -40.0, -15.0, 30.0, 300.0])
def test_labels_that_are_rare_or_certain_keep_their_order_and_their_gradients(far):
    logits = torch.tensor([[far, far - 1, 0.0, 0.0, 0.0]], requires_grad=True)
    model = replace(nets.small()[0].with_groups({"two": (0, 1)}), activation="sigmoid")
    target = torch.tensor([5])
    logit = model.logit_of(logits, target)
    (gradient,) = torch.autograd.grad(logit.sum(), logits)
    exact = torch.tensor([[far, far - 1]], dtype=torch.float64)
    # 1 - P is the product of 1 / (1 + e^z): P / (1 - P) = e^a + e^b + e^(a + b)
    wanted = torch.stack([exact[0, 0], exact[0, 1], exact.sum()]).logsumexp(0)
    assert float(logit.detach()) == pytest.approx(float(wanted), rel=1e-6)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(gradient, model.shares(logits.detach(), target), rtol=1e-4, atol=1e-6)
    assert 0 <= float(model.probabilities(logits)[0, 5]) <= 1


def test_what_a_models_configuration_says():
    module = nets.Small()
    module.config = type("Config", (), {"problem_type": "multi_label_classification"})()
    assert sess_ray.load_model(module, layer="third", input_size=nets.SIDE).activation == "sigmoid"
    told = sess_ray.load_model(module, layer="third", input_size=nets.SIDE, activation="softmax")
    assert told.activation == "softmax"
    assert sess_ray.load_model(told, activation="sigmoid").activation == "sigmoid"
    assert sess_ray.load_model(nets.Small(), layer="third", input_size=nets.SIDE).activation == "softmax"
    with pytest.raises(SessError, match="unknown activation 'tanh': choose one of: auto, none, sigmoid, softmax"):
        sess_ray.load_model(module, activation="tanh")


def test_there_is_one_place_where_probabilities_are_made():
    """What else has the word is a softmax over channels, an option of Score-CAM's family, or over keys of attention."""
    package = Path(sess_ray.__file__).parent
    calls = re.compile(r"\.softmax\(|\.sigmoid\(|F\.(log_)?softmax|torch\.(softmax|sigmoid)\(")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if calls.search(path.read_text())}
    assert found == {"models/scores.py", "methods/perturbation.py", "methods/attention.py"}
