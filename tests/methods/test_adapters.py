"""Each adapter against its library called by hand on the same patches."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

import sess_ray
from sess_ray import SESS, SessError, methods
from tests import nets
from tests.nets import Transformer

CPU = torch.device("cpu")
TARGETS = torch.tensor([3, 0])
GROUP = {"both": [0, 3]}


class Net(nn.Module):
    """Convolutions, a batch norm and rectifiers, all of them modules and each used once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 6, 3, stride=2), nn.ReLU()),
        )
        self.features[1].running_mean.uniform_(-0.2, 0.2)
        self.features[1].running_var.uniform_(0.5, 2)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.classes = nn.Linear(24, 5)

    def forward(self, x):
        return 20 * self.classes(self.pool(self.features(x)).flatten(1))


class Skipping(nets.Pooled):
    def forward(self, x):
        cells = self.cells(x)
        return self.classes((cells + cells.flip(2)).mean((2, 3)))


def oracle(name):
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install 'sess-ray[adapters]'")


def prepared(module, layer, groups=None):
    return (
        sess_ray.load_model(module, layer=layer, input_size=nets.SIDE).with_groups(groups or {}).prepared(CPU, "fp32")
    )


@pytest.fixture(scope="module")
def model():
    return prepared(Net(), "features.4", GROUP)


@pytest.fixture(scope="module")
def patches():
    return nets.patches(2)


def leaf(patches):
    return patches.clone().requires_grad_()


def run(spec, model, patches, targets=TARGETS, **options):
    method = methods.get(spec)
    assert method.refusal(model) is None
    options = method.options | method.parsed(options)
    return method.function(model, patches, targets, generators=nets.generators(len(patches)), **options)


# --- captum


@pytest.mark.parametrize(
    ("name", "options", "by_hand"),
    [
        ("Saliency", {}, {}),
        ("InputXGradient", {}, {}),
        ("GuidedBackprop", {}, {}),
        ("Deconvolution", {}, {}),
        ("DeepLift", {}, {}),
        (
            "IntegratedGradients",
            {"n_steps": "6", "method": "riemann_middle"},
            {"n_steps": 6, "method": "riemann_middle"},
        ),
        (
            "Occlusion",
            {"sliding_window_shapes": "3,9,9", "strides": (3, 6, 6)},
            {"sliding_window_shapes": (3, 9, 9), "strides": (3, 6, 6)},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Setting")
def test_captum(name, options, by_hand, model, patches):
    library = oracle("captum.attr")
    expected = getattr(library, name)(model.module).attribute(leaf(patches), target=TARGETS, **by_hand)
    found = run(f"captum:{name}", model, patches, **options)
    assert found.any()
    torch.testing.assert_close(found, expected.detach().float().sum(1).abs())


@pytest.mark.parametrize("name", ["LayerGradCam", "LayerGradientXActivation", "LayerConductance"])
def test_captum_at_the_layer(name, model, patches):
    layer = model.module.get_submodule(model.layer)
    given = {"n_steps": 4} if name == "LayerConductance" else {}
    expected = getattr(oracle("captum.attr"), name)(model.module, layer).attribute(
        leaf(patches), target=TARGETS, **given
    )
    found = run(f"captum:{name}", model, patches, **given)
    torch.testing.assert_close(found, expected.detach().float().sum(1).relu())
    signed = run(f"captum:{name}", model, patches, sign="all", **given)
    torch.testing.assert_close(signed, expected.detach().float().sum(1))


def test_captum_of_features_that_are_squares(model, patches):
    mask = torch.zeros(1, 1, nets.SIDE, nets.SIDE, dtype=torch.int64)
    mask[..., 16:, :] += 2
    mask[..., 16:] += 1
    expected = oracle("captum.attr").FeatureAblation(model.module).attribute(patches, target=TARGETS, feature_mask=mask)
    found = run("captum:FeatureAblation", model, patches, cells=2, sign="all")
    torch.testing.assert_close(found, expected.sum(1))


@pytest.mark.parametrize("name", ["GradientShap", pytest.param("KernelShap", marks=pytest.mark.slow)])
def test_captum_s_random_numbers_are_the_patch_s_own(name, model, patches):
    oracle("captum.attr")
    method, before = methods.get(f"captum:{name}"), shared_numbers()
    options = method.options | ({"stdevs": 0.3} if name == "GradientShap" else {"cells": 3, "n_samples": 12})
    together = method.function(model, patches, TARGETS, generators=nets.generators(2), **options)
    [_, second] = nets.generators(2)
    alone = method.function(model, patches[1:], TARGETS[1:], generators=[second], **options)
    torch.testing.assert_close(together[1:], alone)
    assert shared_numbers() == before


def shared_numbers():
    """Return the states of the generators that all share."""
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002


# --- pytorch-grad-cam


@pytest.mark.parametrize(
    "name", ["GradCAM", "LayerCAM", "EigenCAM", "KPCA_CAM", "ScoreCAM", "AblationCAM", "ShapleyCAM"]
)
def test_pytorch_grad_cam(name, model, patches):
    library = oracle("pytorch_grad_cam")
    line = oracle("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    with getattr(library, name)(model.module, [model.module.get_submodule(model.layer)]) as cam:
        expected = cam(leaf(patches), [line(int(target)) for target in TARGETS])
    found = run(f"pytorch_grad_cam:{name}", model, patches)
    assert found.shape == (2, nets.SIDE, nets.SIDE)
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_pytorch_grad_cam_with_options(model, patches):
    library = oracle("pytorch_grad_cam")
    line = oracle("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    with library.KPCA_CAM(model.module, [model.module.get_submodule(model.layer)], kernel="rbf", gamma=0.5) as cam:
        expected = cam(leaf(patches), [line(int(target)) for target in TARGETS], aug_smooth=True)
    found = run("pytorch_grad_cam:KPCA_CAM", model, patches, kernel="rbf", gamma="0.5", aug_smooth="true")
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_pytorch_grad_cam_of_tokens(patches):
    oracle("pytorch_grad_cam")
    model = prepared(Transformer(), "blocks.2.norm")
    tap = model.tap(patches)
    own = methods.get("gradcam").function(tap.activations, tap.gradients(TARGETS))
    found = run("pytorch_grad_cam:GradCAM", model, patches)
    up = torch.stack([nets.min_max(nets.up(one)) for one in own])
    torch.testing.assert_close(found, up, atol=0.02, rtol=0)  # enlarged by another library


# --- zennit


@pytest.mark.parametrize("name", ["epsilon_plus", "EpsilonPlusFlat", "epsilon_gamma_box", "guided_backprop"])
def test_zennit(name, model, patches):
    composites, torchvision = oracle("zennit.composites"), oracle("zennit.torchvision")
    kind = composites.COMPOSITES.get(name) or getattr(composites, name)
    bounds = {}
    if name == "epsilon_gamma_box":
        low, high = (
            ((limit - torch.tensor(model.mean)) / torch.tensor(model.std)).view(1, 3, 1, 1) for limit in (0, 1)
        )
        bounds = {"low": low, "high": high}
    composite = kind(canonizers=[torchvision.SequentialMergeBatchNorm()], **bounds)
    with oracle("zennit.attribution").Gradient(model.module, composite) as attributor:
        expected = attributor(patches.clone(), F.one_hot(TARGETS, 5).float())[1].sum(1)
    found = run(f"zennit:{name}", model, patches, sign="all")
    assert found.any()
    torch.testing.assert_close(found, expected)
    own = run(f"zennit:{name}", model, patches)
    torch.testing.assert_close(own, expected.abs() if name == "guided_backprop" else expected.relu())


@pytest.mark.slow
def test_zennit_of_a_residual_network_has_its_canonizer():
    composites, torchvision = oracle("zennit.composites"), oracle("zennit.torchvision")
    torch.manual_seed(1)
    model, inputs = prepared(resnet18(num_classes=5), "layer2"), nets.patches(1)
    composite = composites.EpsilonPlus(canonizers=[torchvision.ResNetCanonizer()], epsilon=0.01)
    with oracle("zennit.attribution").Gradient(model.module, composite) as attributor:
        expected = attributor(inputs.clone(), F.one_hot(TARGETS[:1], 5).float())[1].sum(1).relu()
    found = run("zennit:epsilon_plus", model, inputs, TARGETS[:1], epsilon="0.01")
    torch.testing.assert_close(found, expected)


# --- all of them

SPECS = ["captum:Saliency", "captum:LayerGradCam", "pytorch_grad_cam:HiResCAM", "zennit:epsilon_plus"]


@pytest.mark.parametrize("spec", SPECS)
def test_a_group_is_one_target(spec, model, patches):
    oracle(spec.partition(":")[0])

    class Only(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model.module

        def forward(self, x):
            logits = self.net(x)
            return torch.stack([logits[:, [0, 3]].logsumexp(1), logits[:, 1]], 1)

    found = run(spec, model, patches, torch.tensor([5, 5]))
    only = prepared(Only(), "net.features.4")
    function = methods.get(spec).function
    options = methods.get(spec).options
    expected = function(only, patches, torch.tensor([0, 0]), generators=nets.generators(2), **options)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("spec", SPECS)
def test_the_engine_takes_them_as_its_own(spec, photographs):
    oracle(spec.partition(":")[0])
    method = methods.get(spec)
    assert (method.ratio(), method.fade(), method.cost) == (0.5, 0.0, "one pass")
    sess = SESS(sess_ray.load_model(Net(), layer="features.4", input_size=nets.SIDE), spec, num_scales=2, device="cpu")
    [[one]] = sess.explain([photographs["chelsea.png"][100:160, 150:230]], [[3]])
    assert one.saliency.any()
    assert np.isfinite(one.saliency).all()
    travelled = pickle.loads(pickle.dumps(method))
    assert (travelled.name, travelled.function, travelled.options) == (spec, method.function, method.options)


@pytest.mark.parametrize(
    ("spec", "sign", "given"),
    [
        ("captum:LayerGradCam", "positive", {}),
        ("captum:Occlusion", "absolute_value", {"sliding_window_shapes": "3,9,9"}),
        ("zennit:guided_backprop", "absolute_value", {}),
    ],
)
def test_the_engine_gives_the_defaults_that_are_listed(spec, sign, given, photographs):
    oracle(spec.partition(":")[0])
    model = sess_ray.load_model(Net(), layer="features.4", input_size=nets.SIDE)
    image = photographs["chelsea.png"][100:160, 150:230]

    def map_of(**options):
        sess = SESS(model, spec, num_scales=None, device="cpu", method_options=given | options)
        [[found]] = sess.explain([image], [[3]])
        return found.saliency

    assert methods.get(spec).options["sign"] == sign
    np.testing.assert_array_equal(map_of(), map_of(sign=sign))
    assert all(abs(map_of() - map_of(sign=other)).max() > 0.01 for other in {"positive", "absolute_value"} - {sign})


def test_what_takes_many_passes_keeps_few_windows():
    oracle("captum")
    assert methods.get("captum:Occlusion").ratio() == 0.8
    assert methods.get("captum:IntegratedGradients").fade() == 0.25


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("captum:Salience", "unknown method of captum 'Salience': did you mean Saliency"),
        ("captum:NeuronGradient", "unknown method of captum"),
        ("captum:FeaturePermutation", "permutes the patches of a batch"),
        ("pytorch_grad_cam:GradCam", "unknown method of pytorch_grad_cam 'GradCam': choose one of: AblationCAM"),
        ("pytorch_grad_cam:FinerCAM", "unknown method of pytorch_grad_cam 'FinerCAM'"),
        ("zennit:epsilon_pluss", "unknown composite of zennit 'epsilon_pluss': choose one of: beta_smooth"),
    ],
)
def test_there_is_no_such_method(spec, message):
    oracle(spec.partition(":")[0])
    with pytest.raises(SessError, match=message) as refused:
        methods.get(spec)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "option", "message"),
    [
        ("captum:IntegratedGradients", {"steps": "6"}, "unknown option of captum:IntegratedGradients 'steps'"),
        ("captum:IntegratedGradients", {"n_steps": "many"}, "n_steps=many: use a whole number from 1 on, such as 50"),
        ("captum:IntegratedGradients", {"n_steps": 0}, "n_steps=0: use a whole number from 1 on, such as 50"),
        ("captum:Lime", {"cells": "0"}, "cells=0: use a whole number from 1 on, such as 7"),
        ("zennit:epsilon_plus", {"epsilon": -1}, "epsilon=-1: use a number from 0 on"),
        ("captum:Saliency", {"abs": "perhaps"}, "abs=perhaps: use true or false, such as True"),
        ("captum:Saliency", {"sign": "up"}, "sign=up: choose one of: all, positive, negative, absolute_value"),
        ("zennit:epsilon_plus", {"canonizer": "swin"}, "canonizer=swin: choose one of: auto, batch_norm, resnet"),
    ],
)
def test_options_are_checked(spec, option, message):
    oracle(spec.partition(":")[0])
    with pytest.raises(SessError, match=message):
        methods.get(spec).parsed(option)


@pytest.mark.parametrize(
    ("spec", "make", "layer", "message"),
    [
        ("captum:GuidedBackprop", Transformer, "blocks.2.norm", "it has no nn.ReLU modules for captum to change"),
        ("captum:LayerGradCam", Transformer, "blocks.2.norm", "captum takes channels first"),
        ("captum:LRP", Transformer, "blocks.2.norm", "captum says: "),
        ("zennit:epsilon_plus", Transformer, "blocks.2.norm", "zennit has no rule for attention"),
        ("zennit:guided_backprop", Transformer, "blocks.2.norm", "it has no nn.ReLU modules for zennit to change"),
        ("zennit:epsilon_plus", Skipping, "cells", "zennit has no rule for its skips"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_one_line(spec, make, layer, message):
    oracle(spec.partition(":")[0])
    reason = methods.get(spec).refusal(prepared(make(), layer))
    assert reason.startswith(message)
    assert "\n" not in reason


@pytest.mark.parametrize("library", ["captum", "pytorch_grad_cam", "zennit"])
def test_a_library_that_is_not_there_is_named_with_its_extra(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SessError, match=rf"{library}:X needs {library}.*pip install 'sess-ray\[adapters\]'"):
        methods.get(f"{library}:X")
