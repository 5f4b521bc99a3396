"""What would fail for every image is said before the job starts, in one line."""

from __future__ import annotations

import time

import pytest
import torch
from PIL import Image

import sess_ray
from sess_ray import SESS, SessError, methods
from sess_ray.cli import command, explain
from sess_ray.pipeline.explain import rehearsal
from tests import nets


class Frozen(nets.Small):
    """Its features are computed without gradients."""

    def forward(self, x):
        with torch.no_grad():
            found = self.features(x)
        return self.scale * self.classes(found.amax((2, 3)))


class Detached(nets.Small):
    def features(self, x):
        return super().features(x.detach())


class Broken(nets.Small):
    def forward(self, x):
        if len(x) > 4:
            raise RuntimeError("four at a time")
        return super().forward(x)


def frozen():
    return Frozen()


def detached():
    return Detached()


def broken():
    return Broken()


def endless():
    return Endless()


class Endless(nets.Small):
    def forward(self, x):
        time.sleep(0.02)
        return super().forward(x)


def plain():
    return nets.Small()


def no_map(model, patches, targets):  # noqa: ARG001
    return None


def one_map(model, patches, targets):  # noqa: ARG001
    return patches[:1, 0]


def wrong(model, patches, targets):  # noqa: ARG001
    raise KeyError("a\nmistake")


def not_finite(model, patches, targets):  # noqa: ARG001
    return patches[:, 0] * torch.nan


def for_a_gpu(model, patches, targets):  # noqa: ARG001
    raise RuntimeError("Found no NVIDIA driver: CUDA is not there")


def right(model, patches, targets):  # noqa: ARG001
    return patches[:, 0]


GRADIENTS = {
    *("cam", "gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigengradcam"),
    *("gradient", "guided_backprop", "smoothgrad", "integrated_gradients", "groupcam", "smooth_gradcam++"),
    *("cameras", "xrai", "augmented_gradcam", "extremal_perturbation", "excitation_backprop"),
}


def load(module):
    return sess_ray.load_model(module, layer="third", input_size=nets.SIDE)


@pytest.mark.parametrize("name", sorted(GRADIENTS))
def test_a_method_that_wants_gradients_refuses_a_model_without(name):
    with pytest.raises(SessError, match=f"{name.replace('+', '.')} cannot explain Frozen: ") as raised:
        SESS(load(Frozen()), name, device="cpu")
    assert "\n" not in str(raised.value)
    assert "these methods can: " in str(raised.value)


def test_a_method_that_wants_none_explains_it(photographs):
    image = photographs["chelsea.png"][:60, :70]
    for name, options in (("scorecam", {}), ("rise", {"masks": 12}), ("eigencam", {}), ("fem", {})):
        found = [
            SESS(load(module), name, num_scales=1, device="cpu", method_options=options).explain([image], [[3]])
            for module in (Frozen(), nets.Small())
        ]
        [[one]], [[other]] = found
        assert abs(one.saliency - other.saliency).max() < 1e-5


def test_gradients_that_end_in_front_of_the_layer_are_wanted_by_few():
    model = load(Detached())
    assert methods.get("gradcam").refusal(model.prepared(torch.device("cpu"), "fp32")) is None
    with pytest.raises(SessError, match=r"gradient cannot explain Detached: no gradient comes back .* to the pixels"):
        SESS(model, "gradient", device="cpu")


@pytest.fixture
def run(tmp_path, capsys):
    Image.new("RGB", (90, 70), "red").save(tmp_path / "x.png")

    def run(*arguments):
        given = ["--input", str(tmp_path / "x.png"), "--output", str(tmp_path / "out"), "--dry-run"]
        given += ["--layer", "third", "--input-size", "32", "--num-scales", "2"]
        code = command.run(explain.app, [*given, *arguments])
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("model", "method", "message"),
    [
        ("frozen", "gradcam", "no gradient comes back from its logits to layer third"),
        ("detached", "guided_backprop", "no gradient comes back from its logits to the pixels"),
        ("plain", "no_map", "gives NoneType: give maps, a Tensor (N, u, v)"),
        ("plain", "one_map", "gives (1, 32, 32) for "),
        ("plain", "wrong", "fails on a trial image: KeyError: 'a\\nmistake'"),
        ("plain", "not_finite", "its maps are not finite"),
        ("broken", "gradcam", "fails on a trial image: RuntimeError: four at a time"),
    ],
)
def test_mistakes_of_ones_own_are_one_line(model, method, message, run):
    method = method if method in methods.names() else f"{__name__}:{method}"
    code, told = run("--model", f"{__name__}:{model}", "--method", method)
    assert code == 2
    [line] = told.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_what_works_passes_and_what_takes_long_is_left(monkeypatch):
    sess = SESS(load(nets.Small()), methods.Method("right", "P", right), num_scales=2, device="cpu")
    rehearsal.rehearse(sess)
    assert not sess.model.module._forward_pre_hooks
    rehearsal.rehearse(SESS(load(nets.Small()), methods.Method("gpu", "P", for_a_gpu), num_scales=2, device="cpu"))
    monkeypatch.setattr(rehearsal, "SECONDS", 0.2)
    begin = time.monotonic()
    rehearsal.rehearse(SESS(load(Endless()), "rise", num_scales=2, device="cpu"))
    assert time.monotonic() - begin < 2
