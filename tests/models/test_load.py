from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sess_ray
from sess_ray import SessError
from sess_ray.models import load
from sess_ray.models.heads import known_head
from sess_ray.models.onednn import TAP
from tests import nets

CPU = torch.device("cpu")


def patches(count, size=96, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def whole_backward(module, layer, batch, classes):
    """Activations and d(logit)/dA by hooks and a backward pass through everything."""
    kept = {}
    handle = module.get_submodule(layer).register_forward_hook(
        lambda _, __, out: kept.update(a=out.clone()) or kept["a"].clone()
    )
    with torch.enable_grad():
        logits = module(batch.clone().requires_grad_())
        (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept["a"])
    handle.remove()
    return logits.detach(), kept["a"].detach(), gradient


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "densenet121", "mobilenet_v3_small"])
def test_the_tap_is_a_whole_backward_pass(name):
    model = sess_ray.load_model(name, "random").prepared(CPU, "fp32")
    batch = patches(3)
    classes = torch.tensor([1, 500, 1])
    logits, activations, gradient = whole_backward(copy.deepcopy(model.module), model.layer, batch, classes)
    tap = model.tap(batch)
    for found, expected in (
        (tap.logits, logits),
        (tap.activations, activations),
        (tap.gradients(classes), gradient),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    other = torch.tensor([7, 7, 8])
    expected = whole_backward(copy.deepcopy(model.module), model.layer, batch, other)[2]
    torch.testing.assert_close(
        tap.gradients(other, torch.tensor([0, 2])), expected[[0, 2]], rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )


@pytest.mark.parametrize(
    "layers", [("conv_stem", "blocks", "bn2", "classifier"), ("fused_conv_stem", TAP, "classifier")]
)
def test_only_the_head_is_recorded(lite0, layers):
    model = lite0.prepared(CPU, "fp32")
    if TAP not in layers:
        model = replace(model, original=None)
    seen = []
    handles = [
        model.scorer.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out.requires_grad))
        for name in layers
    ]
    model.tap(patches(1))
    for handle in handles:
        handle.remove()
    *front, head = seen
    assert head
    assert front == [False] * (len(layers) - 1)


def test_the_gradient_of_a_known_head_is_autograds(squeezenet):
    model = squeezenet.prepared(CPU, "fp32")
    tap = model.tap(patches(4))
    classes = torch.tensor([3, 900, 14, 3])
    start = tap.activations.clone().requires_grad_()
    logits = model.module.classifier(start).flatten(1)
    torch.testing.assert_close(logits, tap.logits)
    (expected,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), start)
    assert expected.count_nonzero() > 0
    torch.testing.assert_close(tap.gradients(classes), expected, rtol=1e-5, atol=1e-8)
    rows = torch.tensor([1, 3])
    torch.testing.assert_close(tap.gradients(classes, rows), expected[rows], rtol=1e-5, atol=1e-8)
    assert known_head(model.module, "features.12") is known_head(model.module, model.layer) is not None
    assert known_head(model.module, "features.9") is None


def test_layers_with_in_place_work_behind_them_stay_whole():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, stride=8)
            self.last = nn.Linear(4, 5)

        def forward(self, x):
            return self.last(torch.relu_(self.first(x)).mean((2, 3)))

    model = sess_ray.load_model(Net(), layer="first", input_size=64).prepared(CPU, "fp32")
    tap = model.tap(patches(2, 64))
    assert (tap.activations < 0).any()


def test_preparing_leaves_the_users_module_alone():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    module = nn.Sequential(module, nn.Flatten(), nn.Linear(8, 3))
    before = copy.deepcopy(module.state_dict())
    module[0].train()
    model = sess_ray.load_model(module, input_size=64)
    module[0].train()
    sess_ray.SESS(model, num_scales=1, precision="bf16", device="cpu").explain(
        [torch.zeros(70, 80, 3, dtype=torch.uint8).numpy()]
    )
    assert module[0].training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in module.parameters())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(not child._forward_hooks for child in module.modules())


def test_batch_norms_keep_their_statistics_in_bfloat16(lite0):
    module = lite0.prepared(CPU, "bf16").module
    assert torch.equal(module.bn1.running_var, lite0.module.bn1.running_var)
    assert module.conv_stem.weight.dtype == torch.bfloat16


LAYERS = {
    "vgg16": ("features.29", "NCHW"),
    "resnet18": ("layer4", "NCHW"),
    "squeezenet1_1": ("features", "NCHW"),
    "mobilenet_v2": ("features", "NCHW"),
    "densenet121": ("features", "NCHW"),
    "inception_v3": ("Mixed_7c", "NCHW"),
    "convnext_tiny": ("features", "NCHW"),
    "vit_b_32": ("encoder.layers.encoder_layer_11.ln_1", "NTC"),
    "swin_t": ("features.7.1.norm1", "NHWC"),
    "tf_efficientnet_lite0": ("bn2", "NCHW"),
    "timm/deit_tiny_patch16_224": ("blocks.11.norm1", "NTC"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_is_found(name):
    model = sess_ray.load_model(name, "random")
    assert (model.layer, model.layout) == LAYERS[name]
    tap = model.prepared(CPU, "fp32").tap(patches(2, model.input_size))
    assert tap.activations.ndim == 4
    assert tap.activations.shape[2] == tap.activations.shape[3] >= 5
    assert tap.gradients(torch.tensor([0, 1])).shape == tap.activations.shape


@pytest.mark.slow
def test_random_weights_are_drawn_where_a_constructor_leaves_zeros():
    """Else all classes would be alike, and no method would see anything."""
    first, second = (sess_ray.load_model("vit_b_32", "random").prepared(CPU, "fp32") for _ in range(2))
    assert first.logits(patches(1, first.input_size)).std() > 0.05
    assert torch.equal(first.module.heads.head.weight, second.module.heads.head.weight)


def test_metadata():
    lite2 = sess_ray.load_model("tf_efficientnet_lite2", "random")
    assert (lite2.input_size, lite2.mean, lite2.std) == (260, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    inception = sess_ray.load_model("inception_v3", "random")
    assert (inception.input_size, inception.classes[1]) == (299, "goldfish")


@pytest.mark.slow
def test_the_demos_weights_know_a_cat(lite0, photographs):
    [[found]] = sess_ray.SESS(lite0, num_scales=None, device="cpu").explain([photographs["chelsea.png"]])
    assert found.target_name in ("tabby", "Egyptian cat", "tiger cat")
    [[found]] = sess_ray.SESS(lite0, num_scales=None, device="cpu").explain([photographs["coffee.png"]])
    assert found.target_name == "espresso"


QUICK = """
import sys
from sess_ray import load_model
model = load_model("squeezenet1_1", "random")
assert model.class_index("tench") == 0
assert not {"timm", "torch._dynamo"} & set(sys.modules)  # seconds
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported
from_there = asked("cpu"), asked("meta")
from torch._dynamo.utils import is_compile_supported
assert from_there == (is_compile_supported("cpu"), is_compile_supported("meta"))
assert model.class_index("n02123045") == 281
"""


@pytest.mark.slow
def test_a_model_is_there_without_torchs_compiler_and_torchvision_still_finds_it():
    pytest.importorskip("timm")
    subprocess.run([sys.executable, "-c", QUICK], check=True)


def test_classes_by_index_name_synonym_and_wordnet_id(lite0):
    assert lite0.class_index("281") == lite0.class_index("Tabby") == lite0.class_index("n02123045") == 281
    assert lite0.class_index("tinca tinca") == 0
    assert lite0.class_index("EGYPTIAN cat") == 285
    with pytest.raises(SessError, match="2 classes named 'crane': use an index, 134 or 517"):
        lite0.class_index("crane")
    with pytest.raises(SessError, match="class 1000 is out of range"):
        lite0.class_index(1000)
    with pytest.raises(SessError, match="did you mean tabby"):
        lite0.class_index("tabbi")
    others = replace(lite0, classes=tuple(f"part {number}" for number in range(1000)), aliases={})
    assert not others.knows("n02123045")


def test_weights_from_files(tmp_path):
    reference = sess_ray.load_model("squeezenet1_1", "random")
    state = {key: value + 1 for key, value in reference.module.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    digests = {
        sess_ray.load_model("squeezenet1_1", str(tmp_path / name)).weights_sha256()
        for name in ("w.safetensors", "w.pth")
    }
    assert len(digests) == 1
    assert digests != {reference.weights_sha256()}


@pytest.mark.slow
def test_a_checkpoint_with_another_number_of_classes(tmp_path):
    import torchvision

    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / "w.pth")
    model = sess_ray.load_model("resnet18", str(tmp_path / "w.pth"))
    assert (model.num_classes, model.classes) == (7, ())
    with pytest.raises(SessError, match="class names of resnet18 are unknown"):
        model.class_index("cat")
    named = sess_ray.load_model("resnet18", str(tmp_path / "w.pth"), class_names=list("abcdefg"))
    assert named.class_index("c") == 2


class _Evil:
    def __reduce__(self):
        return (print, ("code in a weights file ran",))


def test_a_weights_file_can_not_run_code(tmp_path, capsys):
    torch.save({"weight": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(SessError, match=r"pickled code \(.*print\)"):
        sess_ray.load_model("squeezenet1_1", str(tmp_path / "evil.pth"))
    assert "ran" not in capsys.readouterr().out


@pytest.mark.slow
def test_of_timms_models_tags_and_heads(tmp_path):
    timm = pytest.importorskip("timm")
    with pytest.raises(SessError, match="unknown tag of resnet18 'nonsense': choose one of: a1_in1k, a2_in1k"):
        sess_ray.load_model("timm/resnet18.nonsense", "random")
    with pytest.raises(SessError, match="has no classifier and gives features, not classes"):
        sess_ray.load_model("vit_small_patch14_dinov2", "random")
    tuned = timm.create_model("vit_small_patch14_dinov2", num_classes=7)
    torch.save(tuned.state_dict(), tmp_path / "w.pth")
    source = load._find("vit_small_patch14_dinov2", None)[1]
    module, _ = load._weigh("vit_small_patch14_dinov2", source, str(tmp_path / "w.pth"))
    assert torch.equal(module.head.weight, tuned.head.weight)


def test_preprocessing_that_is_given_or_told(lite0):
    told = nets.Small()
    told.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "url": ""}
    model = sess_ray.load_model(told, layer="third")
    assert (model.input_size, model.mean, model.std) == (32, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    model = sess_ray.load_model(told, layer="third", input_size=(48, 48), mean=0.4, std=[0.2])
    assert (model.input_size, model.mean, model.std) == (48, (0.4,) * 3, (0.2,) * 3)
    changed = sess_ray.load_model(
        lite0, layer="blocks.5", input_size=96, mean=0.5, class_names=[f"c, {n}" for n in range(1000)]
    )
    assert (changed.layer, changed.input_size, changed.mean, changed.std) == ("blocks.5", 96, (0.5,) * 3, lite0.std)
    assert (changed.classes[7], changed.class_index("C, 7")) == ("c, 7", 7)
    assert sess_ray.load_model(lite0) is lite0
    for options, message in (
        ({"input_size": (0, 320)}, "input_size is 0 x 320: use 1 pixel or more"),
        ({"input_size": (32, 32, 3)}, "give the side of the input in pixels, such as 224, or its height and width"),
        ({"input_size": 0}, "input_size is 0: use 1 pixel or more"),
        ({"mean": (123.7, 116.3, 103.5)}, "mean 123.7, 116.3, 103.5: give three numbers, for R, G and B in 0..1"),
        ({"std": 0}, "std 0, 0, 0: give three numbers"),
        ({"mean": (0.5, 0.5)}, "mean 0.5, 0.5: give three numbers"),
        ({"mean": "grey"}, "mean 'grey': give three numbers"),
        ({"input_size": "32"}, "input_size '32': give the side of the input in pixels"),
        ({"input_size": 32.0}, "input_size 32.0: give the side of the input in pixels"),
        ({"class_names": ["a"]}, "1 class names for the 5 classes of Small"),
        ({"class_names": "abcde"}, "class names are a list of words"),
        ({"class_names": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}}, "class names are a list of words"),
        ({"class_names": [1, 2, 3, 4, 5]}, "class names are a list of words"),
    ):
        with pytest.raises(SessError, match=message):
            sess_ray.load_model(told, layer="third", **options)


def test_a_module_of_another_size_says_how_to_give_it():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 15 * 15, 5))
    with pytest.raises(
        SessError, match=r"does not take N x 3 x 224 x 224 images .* give it \(--input-size, input_size=\)"
    ):
        sess_ray.load_model(module)
    assert sess_ray.load_model(module, input_size=np.int64(32)).layer == "0"


def test_errors_say_what_to_do(tmp_path):
    save_file(sess_ray.load_model("squeezenet1_0", "random").module.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(SessError, match=r"do not fit squeezenet1_1: .* of another shape \(such as features"):
        sess_ray.load_model("squeezenet1_1", str(tmp_path / "w.safetensors"))
    for arguments, message in (
        (("resnet51",), "did you mean .*resnet50"),
        (("squeezenet1_1", "nowhere.safetensors"), "no such weights: nowhere.safetensors"),
        (("squeezenet1_1", "random", "features.99"), "unknown layer 'features.99': did you mean features.9"),
        (("resnet18", "random", "fc"), "has no grid of positions"),
        (("no_such_package:function",), "No module named 'no_such_package'"),
        (("sess_ray.demo:nothing",), "has no attribute 'nothing'"),
        (("sess_ray.demo:images",), "returned list, not a torch.nn.Module"),
    ):
        with pytest.raises(SessError, match=message):
            sess_ray.load_model(*arguments)
    for model, message in (
        (nets.Small, "a model is a name or a torch.nn.Module, and this one is the class Small: build it"),
        (nets.Small().state_dict(), "and this one is of type OrderedDict"),
        (str(tmp_path), "is a file or a folder: give its architecture by name, and weights as --weights FILE"),
        (str(tmp_path / "w.safetensors"), "a folder of transformers as hf:FOLDER, of timm as local-dir:FOLDER"),
        ("hf:./nowhere", "hf:./nowhere: no such folder"),
    ):
        with pytest.raises(SessError, match=message):
            sess_ray.load_model(model)
