"""Weights as training loops leave them."""

from __future__ import annotations

import argparse
import collections
import io
import pathlib
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sess_ray
from sess_ray import SessError
from sess_ray.models.checkpoints import opened, renamed
from tests import nets


def state():
    return {key: value.clone() + 1 for key, value in nets.Small(seed=3).state_dict().items()}


def behind(prefix):
    return {f"{prefix}{key}": value for key, value in state().items()}


def trained(optimiser):
    """Return the state of an optimiser after a step, which has tensors for each weight."""
    net = nets.Small()
    options = {"momentum": 0.9} if optimiser is torch.optim.SGD else {}
    loop = optimiser(net.parameters(), lr=0.1, **options)
    net(nets.patches(2)).sum().backward()
    loop.step()
    return loop.state_dict()


def load(weights):
    return sess_ray.load_model(nets.Small(), weights, "third", input_size=nets.SIDE)


@pytest.fixture
def saved(tmp_path):
    def save(content):
        torch.save(content, tmp_path / "w.pth")
        return str(tmp_path / "w.pth")

    return save


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (state(), []),
        (behind("module."), ["the keys' prefix module. is taken off"]),
        (behind("net."), ["the keys' prefix net. is taken off"]),
        (behind("_orig_mod.module."), ["the keys' prefix _orig_mod.module. is taken off"]),
        ({"state_dict": behind("model."), "epoch": 3, "optimizer_states": [{"state": {0: {"step": torch.ones(1)}}}],
          "pytorch-lightning_version": "2.0", "hyper_parameters": {"lr": 0.1}},
         ["taken from state_dict", "the keys' prefix model. is taken off"]),
        ({"model_state_dict": state(), "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]}},
         ["taken from model_state_dict"]),
        ({"optimizer": trained(torch.optim.AdamW), "model": behind("module."), "acc": {"best": torch.ones(1)}},
         ["taken from model", "the keys' prefix module. is taken off"]),
        ({"optimizer": trained(torch.optim.SGD), "model": state()}, ["taken from model"]),
        ({"net": state(), "acc": 93.1}, ["taken from net"]),
        ({"ema": collections.OrderedDict(behind("module."))},
         ["taken from ema", "the keys' prefix module. is taken off"]),
        ({"model": state(), "args": argparse.Namespace(lr=0.1)}, ["taken from model"]),
        ({"model": state(), "best": np.float64(93.1), "root": pathlib.Path("data"), "args": types.SimpleNamespace(lr=1),
          "random": np.random.RandomState(0).get_state(), "steps": np.int64(3), "seen": np.array(["a", "b"])},
         ["taken from model"]),
        ({"state_dict": {**behind("model."), "loss.pos_weight": torch.ones(5), "auroc.total": torch.ones(1)}},
         ["taken from state_dict", "the keys' prefix model. is taken off, 2 others left out"]),
    ],
)  # fmt: skip
def test_weights_in_wrappers_are_found_and_said(content, notes, saved):
    path = saved(content)
    model = load(path)
    assert all(torch.equal(model.module.state_dict()[key], value) for key, value in state().items())
    assert list(model.notes) == [f"weights {path!r}: {note}" for note in notes]


def test_a_model_whose_own_names_begin_alike_keeps_them():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nets.Small()

        def forward(self, x):
            return self.net(x)

    for prefix in ("net.", "module.net."):
        model = sess_ray.load_model(Wrapped(), behind(prefix), "net.third", input_size=nets.SIDE)
        assert torch.equal(model.module.net.first.weight, state()["first.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": state(), "ema": state()}, "hold 2 state dicts .model, ema.: save the one that is meant"),
        (
            {"a": {"model": state(), "ema": state()}},
            "hold 2 state dicts .a / model, a / ema.: .*.torch.load.FILE..'a'..'model'., OTHER",
        ),
        ({**behind("student."), **behind("teacher.")}, "hold the model 2 times, behind student., teacher."),
        (
            {"optimizer": trained(torch.optim.AdamW), "model": dict.fromkeys("abcd", torch.ones(1))},
            "do not fit Small: 8 of 8 missing .such as first.weight., 4 unexpected .a, b, c, ...",
        ),
        ({key: value.to_sparse() for key, value in state().items()}, "cannot be loaded: "),
        ({"epoch": 3, "lr": 0.1}, "hold no state dict .a dict of tensors., but a dict of epoch, lr"),
        ([1, 2], "but a list"),
        ({}, "but a dict of nothing"),
        (
            {key.replace("third", "last"): value for key, value in state().items()},
            "do not fit Small: 2 of 8 missing .such as third.weight, like last.weight., 2 unexpected .last.weight,",
        ),
        (
            {**state(), "fourth.weight": torch.ones(1)},
            "do not fit Small: 1 unexpected .fourth.weight.",
        ),
        (
            {key: value for key, value in behind("encoder.").items() if "first" not in key},
            "2 of 8 missing .such as first.weight.",
        ),
        (
            {**state(), "second.weight": torch.ones(1, 2)},
            r"1 of another shape .such as second.weight, \(1, 2\) for \(6, 8, 3, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_told_by_its_keys(content, message, saved):
    for weights in (saved(content), content):
        if isinstance(weights, list):
            continue
        with pytest.raises(SessError, match=message) as raised:
            load(weights)
        assert "\n" not in str(raised.value)


def test_names_that_are_near_are_told():
    theirs = {key.replace("second", "conv_second"): value for key, value in state().items()}
    with pytest.raises(SessError, match=r"such as second\.weight, like conv_second\.weight"):
        load(theirs)


class Pickled(nn.Module):
    pass


@pytest.mark.parametrize("what", ["a module", "a function", "a script"])
def test_code_is_never_run_and_nobody_is_told_to_run_it(what, saved, tmp_path):
    content = {"a module": Pickled(), "a function": {"state_dict": state(), "fn": print}}.get(what)
    path = saved(content)
    if what == "a script":
        path = str(tmp_path / "script.pt")
        torch.jit.save(torch.jit.trace(nets.Small().eval(), nets.patches(1)), path)
    with pytest.raises(SessError) as raised:
        load(path)
    text = str(raised.value)
    assert "weights_only" not in text
    assert "\n" not in text
    assert ("TorchScript" if what == "a script" else "pickled code") in text
    assert "save a state dict" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "are no file of torch or of safetensors: download them again"),
        (b"", "are no file of torch or of safetensors: "),
        (b"\n<!doctype html>", "are no file of torch or of safetensors, but a web page: "),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "are a pointer of Git LFS, .* git lfs pull"),
        (b"PK\x03\x04nonsense", "are no state dict that torch can read"),
        (b"\x10" + bytes(7) + b"{}" + bytes(14), "are not a safetensors file"),
    ],
)
def test_what_is_no_checkpoint_at_all(content, message, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(SessError, match=message) as raised:
        load(str(tmp_path / "w.pth"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("system", ["Posix", "Windows"])
@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_paths_in_a_file_are_those_of_any_system_and_version(system, module, tmp_path):
    """Python 3.13 calls the module pathlib._local."""
    content = io.BytesIO()
    torch.save({"model": state(), "root": pathlib.PosixPath("data")}, content, _use_new_zipfile_serialization=False)
    name = b"cpathlib\nPosixPath\n"
    assert content.getvalue().count(name) == 1
    (tmp_path / "w.pth").write_bytes(content.getvalue().replace(name, f"c{module}\n{system}Path\n".encode()))
    assert torch.equal(load(str(tmp_path / "w.pth")).module.first.weight, state()["first.weight"])


def test_files_are_what_they_hold_whatever_they_are_called(tmp_path):
    save_file(state(), tmp_path / "w.bin")
    torch.save(state(), tmp_path / "w.safetensors")
    for name in ("w.bin", "w.safetensors"):
        assert torch.equal(load(tmp_path / name).module.first.weight, state()["first.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "aux"), [("googlenet", "aux1"), ("inception_v3", "AuxLogits")])
def test_heads_that_only_training_has_are_forgiven(name, aux, saved):
    import torchvision

    digests = set()
    for heads in (True, False):
        torch.manual_seed(3)
        module = torchvision.models.get_model(name, weights=None, init_weights=False, num_classes=7, aux_logits=True)
        kept = {key: value for key, value in module.state_dict().items() if heads or not key.startswith("aux")}
        kept = {key: value for key, value in kept.items() if heads or not key.startswith(aux)}
        model = sess_ray.load_model(name, saved(kept))
        assert model.num_classes == 7
        assert torch.equal(model.module.fc.weight, module.fc.weight)
        digests.add(model.weights_sha256())
    assert sess_ray.load_model(name, saved(kept)).weights_sha256() in digests  # and the same in every run


def test_a_larger_model_of_the_same_kind_is_not_taken_for_a_smaller_one():
    bigger = {**behind("model."), "model.fourth.weight": torch.ones(1)}
    with pytest.raises(SessError, match=r"1 unexpected \(fourth\.weight\)"):
        load(bigger)
    assert opened({"a": 1, "b": {"x": torch.ones(1)}}, "these")[1] == ("b",)
    assert renamed({"x": torch.ones(1)}, [], "these") == ({"x": torch.ones(1)}, "")
