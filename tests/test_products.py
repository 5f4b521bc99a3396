"""float32 products are what `precision` says while the engine runs, and the caller's own between two images."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from torch.backends import cuda, cudnn, mkldnn

from sess_ray import SESS, load_model
from sess_ray.blur import _in_two_steps, gaussian_kernel
from sess_ray.models.model import Model
from sess_ray.products import multiplying
from tests import nets

WORDS = pytest.mark.skipif(not hasattr(cudnn, "conv"), reason="torch knows no fp32_precision")


def put(owner, value, name="fp32_precision"):
    setattr(owner, name, value)


# What a caller may have said before.
SAID = {
    "nothing": lambda: None,
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "cudnn off": lambda: put(cudnn, False, "allow_tf32"),
    "both on": lambda: (put(cuda.matmul, True, "allow_tf32"), put(cudnn, True, "allow_tf32")),
    "matmul": lambda: put(cuda.matmul, "tf32"),
    "all": lambda: put(torch.backends, "tf32"),
    "conv": lambda: put(cudnn.conv, "ieee"),
    "rnn": lambda: put(cudnn.rnn, "ieee"),
}
needs_words = {"matmul", "all", "conv", "rnn"}
EVERY = [pytest.param(name, marks=[WORDS] if name in needs_words else []) for name in SAID]


def words():
    owners = (cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, torch.backends) if hasattr(cudnn, "conv") else ()
    return [owner.fp32_precision for owner in owners]


def shared():
    found = []
    for get in (torch.get_float32_matmul_precision, lambda: cuda.matmul.allow_tf32, lambda: cudnn.allow_tf32):
        found.append("contradiction")
        with suppress(RuntimeError):
            found[-1] = get()
    return found


def rounds():
    """Return whether products of matrices and convolutions may be rounded, as kernels ask; every question is taken."""
    assert "contradiction" not in shared()
    told = (cuda.matmul.allow_tf32, cudnn.allow_tf32)
    if hasattr(cudnn, "conv"):
        assert tuple(word == "tf32" for word in words()[:2]) == told
    return told


@pytest.fixture(params=EVERY)
def said(request):
    before = words(), torch.get_float32_matmul_precision(), cudnn.allow_tf32
    SAID[request.param]()
    yield request.param
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision(before[1])
    cudnn.allow_tf32 = before[2]
    for owner, word in zip((cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul), before[0], strict=False):
        owner.fp32_precision = word


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("tf32", [False, True])
def test_products_are_as_told_and_afterwards_as_before(tf32):
    before = words(), shared()
    with multiplying(tf32=tf32):
        assert rounds() == (tf32, tf32)
        with multiplying(tf32=not tf32):
            assert rounds() == (not tf32, not tf32)
        assert rounds() == (tf32, tf32)
    assert words() == before[0]
    # Who has contradicted himself may be answered now.
    assert [a for a, b in zip(shared(), before[1], strict=True) if b != "contradiction"] == [
        b for b in before[1] if b != "contradiction"
    ]


@pytest.mark.usefixtures("said")
def test_they_are_the_callers_again_after_an_error():
    before = words()
    with pytest.raises(KeyError), multiplying(tf32=True):
        raise KeyError
    assert words() == before


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("tf32", True)])
def test_the_engine_multiplies_by_its_precision_and_between_images_as_the_caller(precision, expected, monkeypatch):
    seen = []
    tap = Model.tap

    def asked(self, patches, **options):
        seen.append(rounds())
        return tap(self, patches, **options)

    monkeypatch.setattr(Model, "tap", asked)
    model = load_model(nets.Small(), layer="third", input_size=nets.SIDE)
    sess = SESS(model, num_scales=1, device="cpu", precision=precision)
    before = words()
    for _ in sess.stream((np.zeros((40, 60, 3), np.uint8), "top1") for _ in range(2)):
        assert words() == before
    assert set(seen) == {(expected, expected)}
    seen.clear()
    with pytest.raises(ZeroDivisionError):
        list(sess.stream((np.zeros((40, 60 // number, 3), np.uint8), "top1") for number in (1, 0)))
    assert words() == before


@pytest.mark.usefixtures("said")
def test_scores_of_a_metric_too(monkeypatch):
    model, _ = nets.small()
    seen = []
    monkeypatch.setattr(type(model), "scorer", property(lambda _: lambda _: seen.append(rounds())))
    for tf32 in (False, True):
        type(model)(**{**vars(model), "tf32": tf32}).logits(model.probe())
    assert seen == [(False, False), (True, True)]


@pytest.mark.usefixtures("said")
def test_a_blur_is_exact_whatever_the_caller_says(monkeypatch):
    convolve, seen = torch.nn.functional.conv2d, []

    def conv2d(*given):
        seen.append(rounds())
        return convolve(*given)

    monkeypatch.setattr("sess_ray.blur.F.conv2d", conv2d)
    found = _in_two_steps(torch.ones(1, 1, 9, 9), tuple(gaussian_kernel(5, 1.0).tolist()))
    assert seen == [(False, False)] * 2
    assert found.allclose(torch.ones(1, 1, 5, 5))
