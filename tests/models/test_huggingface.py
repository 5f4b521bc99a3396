"""Classifiers of Hugging Face transformers, tiny ones with random weights that are saved and loaded by folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import sess_ray
from sess_ray import SESS, SessError
from sess_ray.models import layers
from sess_ray.models.processors import preprocessing
from tests.models import huggingface_zoo as zoo
from tests.models.huggingface_zoo import by_hand, normalised

transformers = pytest.importorskip("transformers")
# To import transformers alone takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_hub")]


@pytest.mark.parametrize("kind", ["vit", "swin", "dinov2_with_registers", "resnet", "mobilevit"])
def test_logits_are_those_of_the_library_by_hand(kind, tmp_path):
    network, processor = zoo.saved(kind, tmp_path)
    model = sess_ray.load_model(f"hf:{tmp_path}")
    image = zoo.picture(model.input_size)
    found = model.module(normalised(image, model.mean, model.std))
    torch.testing.assert_close(found, by_hand(network, processor, image), rtol=1e-5, atol=1e-5)
    assert model.mean == (0.4, 0.5, 0.6)
    assert model.classes == ("walrus", "sea otter", "gull", "crab")
    assert model.class_index("Enhydra lutris") == 1
    assert model.activation == "softmax"


def test_explanations_name_the_classes_that_the_checkpoint_names(tmp_path):
    network, processor = zoo.saved("vit", tmp_path)
    image = zoo.picture(32)
    [[found]] = SESS(f"hf:{tmp_path}", num_scales=None, device="cpu").explain([image], ["top1"])
    best = int(by_hand(network, processor, image).argmax())
    assert (found.target, found.target_name) == (best, zoo.NAMES[best].split(",")[0])


# --- image processors ---

PROCESSORS = {
    "resize and crop": ("ViTImageProcessor", {"size": {"height": 40, "width": 40}}),
    "shortest edge, then a crop": (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}},
    ),
    "crop by a share": ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
    "0..1": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
    "0..255": (
        "ViTImageProcessor",
        {"size": {"height": 32, "width": 32}, "do_normalize": False, "do_rescale": False},
    ),
    "blue first": (
        "MobileViTImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
    ),
    "means twice": ("EfficientNetImageProcessor", {"size": {"height": 32, "width": 32}, "include_top": True}),
    "-1..1": (
        "EfficientNetImageProcessor",
        {
            "size": {"height": 32, "width": 32},
            "rescale_offset": True,
            "rescale_factor": 1 / 127.5,
            "do_normalize": False,
        },
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_a_processor_does_is_measured(name):
    kind, options = PROCESSORS[name]
    processor = getattr(transformers, kind)(**options)
    found = preprocessing(processor, name)
    height, width = found.size
    image = zoo.picture(height)
    assert processor(images=zoo.picture(90), return_tensors="pt")["pixel_values"].shape == (1, 3, height, width)
    given = processor(images=image, return_tensors="pt", do_resize=False, do_center_crop=False)["pixel_values"].float()
    ours = normalised(image, found.mean, found.std)
    torch.testing.assert_close(ours.flip(1) if found.reverses else ours, given, rtol=1e-5, atol=1e-4)
    assert found.reverses == (name == "blue first")


def test_a_model_of_blue_first_has_its_channels_reversed(tmp_path):
    network, _ = zoo.saved("mobilevit", tmp_path)
    processor = transformers.MobileViTImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, do_flip_channel_order=True
    )
    processor.save_pretrained(tmp_path)
    model = sess_ray.load_model(f"hf:{tmp_path}")
    image = zoo.picture(64)
    found = model.module(normalised(image, model.mean, model.std))
    torch.testing.assert_close(found, by_hand(network, processor, image), rtol=1e-5, atol=1e-5)


def test_what_a_processor_does_beside_is_refused():
    class Squares:
        def __call__(self, images, return_tensors):  # noqa: ARG002 - as transformers calls it
            return {"pixel_values": (torch.from_numpy(np.array(images)).permute(2, 0, 1)[None, :, :32, :32] / 255) ** 2}

    with pytest.raises(SessError, match="does more than to resize and normalise"):
        preprocessing(Squares(), "a model")
    unsized = transformers.ViTImageProcessor(do_resize=False)
    with pytest.raises(SessError, match="does not resize: set do_resize"):
        preprocessing(unsized, "a model")
    assert preprocessing(unsized, "a model", 32).size == (32, 32)


# --- layers ---

LAYERS = {  # kind: where the layer is, and the sides of its grid
    "beit": ("layers.1.layernorm_before", 4),
    "bit": ("norm", 8),
    "clip": ("layers.1.layer_norm1", 4),
    "convnext": ("stages.1", 4),
    "convnextv2": ("stages.1", 4),
    "cvt": ("stages.1.layers.1.layernorm_before", 8),
    "data2vec-vision": ("layer.1.layernorm_before", 4),
    "deit": ("layers.1.layernorm_before", 4),
    "dinov2": ("layer.1.norm1", 4),
    "dinov2_with_registers": ("layer.1.norm1", 4),
    "donut-swin": ("layers.1.blocks.1.layernorm_before", 4),
    "efficientnet": ("top_activation", 2),
    "focalnet": ("stages.1.layers.0.norm1", 4),
    "ijepa": ("layers.1.layernorm_before", 4),
    "levit": ("stages.2", 2),
    "mobilenet_v1": ("layer.25", 2),
    "mobilenet_v2": ("conv_1x1", 2),
    "mobilevit": ("conv_1x1_exp", 2),
    "mobilevitv2": ("encoder.layer.4", 2),
    "poolformer": ("norm", 4),
    "pvt": ("block.1.0.layer_norm_1", 4),
    "pvt_v2": ("layers.1.blocks.0.layer_norm_1", 4),
    "regnet": ("stages.1", 8),
    "resnet": ("stages.1", 8),
    "segformer": ("stages.1.blocks.0.layernorm_before", 4),
    "siglip": ("layers.1.layer_norm1", 4),
    "swiftformer": ("norm", 2),
    "swin": ("layers.1.blocks.1.layernorm_before", 4),
    "swinv2": ("swinv2.layernorm", 4),
    "vit": ("layers.1.layernorm_before", 4),
    "vit_msn": ("layers.1.layernorm_before", 4),
}


@pytest.mark.parametrize(
    ("kind", "teacher"), [*((kind, False) for kind in LAYERS), *((kind, True) for kind in zoo.SECOND_HEADS)]
)
def test_cells_of_a_map_are_where_the_pixels_are(kind, teacher):
    """Other pixels in a quarter of the image are seen most in that quarter; and every cell has a gradient."""
    network = zoo.classifier(kind, teacher=teacher)
    network.register_forward_hook(lambda _, __, output: output.logits)
    side = zoo.side(kind)
    name, layout, classes, _ = layers.find_layer(network, side, None)
    where, cells = LAYERS[kind]
    assert name.endswith(where)
    assert classes == 4
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, side, side, generator=generator)
    half = side // 2
    others = image.repeat(4, 1, 1, 1)
    for number, other in enumerate(others):
        y, x = divmod(number, 2)
        other[:, y * half :, x * half :][:, :half, :half] = torch.randn(3, half, half, generator=generator)
    kept = []
    with layers.hooked(network.get_submodule(name), lambda _, __, output: kept.append(output) or output.retain_grad()):
        network(torch.cat([image, others]).requires_grad_())[:, 1].sum().backward()
    grid = layers.to_grid(kept[0], layout).detach()
    assert grid.shape[2:] == (cells, cells)
    assert (layers.to_grid(kept[0].grad, layout).norm(dim=1) > 0).all()
    if cells > 2:  # else each cell sees the whole image, or nearly
        change = F.adaptive_avg_pool2d((grid[1:] - grid[:1]).norm(dim=1), 2).flatten(1)
        assert change.argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "norm", "reached"),
    [
        ("vit", "layers.1.layernorm_after", False),
        ("vit", "layers.0.layernorm_before", True),
        ("dinov2_with_registers", "layer.1.norm2", True),  # its head reads the mean of the positions, too
        ("swin", "layers.1.blocks.1.layernorm_after", True),
    ],
)
def test_behind_the_last_attention_positions_have_a_gradient_if_the_head_reads_them(kind, norm, reached):
    """docs/models.md says why the first norm is taken, and not the second."""
    network, side, kept = zoo.classifier(kind), zoo.side(kind), []
    [layer] = [module for name, module in network.named_modules() if name.endswith(norm)]
    layer.register_forward_hook(lambda _, __, output: kept.append(output) or output.retain_grad())
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network(images).logits[0, 1].backward()
    tokens = kept[0].grad[0].abs().sum(1)
    assert bool((tokens[-16:] > 0).all()) == reached
    assert tokens.any()


def test_registers_that_could_be_positions_are_refused():
    network = zoo.classifier("dinov2_with_registers", image_size=16)  # 2 x 2 positions, and 5 tokens before them
    network.register_forward_hook(lambda _, __, output: output.logits)
    with pytest.raises(SessError, match="gives 9 tokens, and which of them are the 2 x 2 positions is not clear"):
        layers.find_layer(network, 16, None)


@pytest.mark.parametrize(("kind", "norm"), [("vit", "layernorm_before"), ("swin", "layernorm_before")])
def test_gradcam_by_hooks(kind, norm, tmp_path):
    network, processor = zoo.saved(kind, tmp_path)
    image = zoo.picture(32)
    kept = {}
    last = [module for name, module in network.named_modules() if name.endswith(norm)][-1]
    last.register_forward_hook(lambda _, __, output: kept.update(a=output))
    logits = network(**processor(images=image, return_tensors="pt")).logits
    (gradient,) = torch.autograd.grad(logits[0, 2], kept["a"])
    tokens, weights = kept["a"][0, -16:].detach().double(), gradient[0, -16:].double()
    cells = (tokens @ weights.mean(0)).clamp(min=0).view(4, 4)
    wide = F.interpolate(cells[None, None], size=(32, 32), mode="bilinear")[0, 0]
    expected = (wide - wide.min()) / (wide.max() - wide.min())
    [[found]] = SESS(f"hf:{tmp_path}", num_scales=None, device="cpu").explain([image], [[2]])
    assert expected.std() > 0.1
    np.testing.assert_allclose(found.saliency, expected.numpy(), atol=2e-5)


# --- weights ---


def test_weights_of_ones_own_and_none(tmp_path):
    network, _ = zoo.saved("vit", tmp_path / "a")
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state["classifier.weight"], state["classifier.bias"] = torch.ones(7, 16), torch.arange(7.0)
    save_file(state, tmp_path / "w.safetensors")
    model = sess_ray.load_model(f"hf:{tmp_path / 'a'}", str(tmp_path / "w.safetensors"))
    assert (model.num_classes, model.classes) == (7, ())
    assert torch.equal(model.module.classifier.bias, torch.arange(7.0))
    first, second = (sess_ray.load_model(f"hf:{tmp_path / 'a'}", "random").weights_sha256() for _ in range(2))
    assert first == second != sess_ray.load_model(f"hf:{tmp_path / 'a'}").weights_sha256()


def test_labels_that_do_not_compete_are_sigmoids(tmp_path):
    zoo.saved("vit", tmp_path, problem_type="multi_label_classification")
    assert sess_ray.load_model(f"hf:{tmp_path}").activation == "sigmoid"


def test_numbers_of_a_regression_are_no_scores(tmp_path):
    zoo.saved("vit", tmp_path, problem_type="regression")
    with pytest.raises(SessError, match="is for regression, and its outputs are no scores of classes"):
        sess_ray.load_model(f"hf:{tmp_path}")
    assert sess_ray.load_model(f"hf:{tmp_path}", activation="sigmoid").activation == "sigmoid"


def test_weights_in_half_precision_are_read_in_full(tmp_path):
    network, _ = zoo.saved("vit", tmp_path)
    network.half().save_pretrained(tmp_path)
    model = sess_ray.load_model(f"hf:{tmp_path}")
    assert {weight.dtype for weight in model.module.parameters()} == {torch.float32}


# --- what cannot be loaded ---


def broken(folder, what):
    if what == "nothing":
        folder.mkdir()
        return
    zoo.saved("vit", folder)
    settings = json.loads((folder / "config.json").read_text())
    if what == "no processor":
        (folder / "preprocessor_config.json").unlink()
    elif what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "other labels":
        settings |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    elif what == "no head":
        settings["architectures"] = ["ViTModel"]
    elif what == "weights without a head":
        transformers.ViTModel(transformers.AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    elif what == "unknown kind":
        settings["model_type"] = "nonsense"
    if what != "weights without a head":
        (folder / "config.json").write_text(json.dumps(settings))
    else:
        (folder / "config.json").write_text(json.dumps(settings | {"architectures": ["ViTForImageClassification"]}))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "the folder has no config.json"),
        ("no processor", "Can't load image processor for .*: save it beside the model"),
        ("no weights", "no file named model.safetensors"),
        (
            "other labels",
            r"classifier.bias has the shape \(4,\) in its weights, and \(2,\) by its config.json: put num",
        ),
        ("no head", "has no head that classifies: it is ViTModel"),
        ("weights without a head", "2 weights are missing, such as classifier.bias: it is not a whole classifier"),
        ("unknown kind", "cannot load hf:.*nonsense"),
    ],
)
def test_folders_that_hold_no_classifier(what, message, tmp_path):
    broken(tmp_path / "folder", what)
    with pytest.raises(SessError, match=message) as raised:
        sess_ray.load_model(f"hf:{tmp_path / 'folder'}")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("name", "message"),
    [("hf:/no/where", "no such folder"), ("hf:a name", "no such folder"), ("hf:no/where", "couldn't connect")],
)
def test_what_is_nowhere(name, message):
    with pytest.raises(SessError, match=message) as raised:
        sess_ray.load_model(name)
    assert "\n" not in str(raised.value)


def test_prompts_are_for_zero_shot_models(tmp_path):
    zoo.saved("vit", tmp_path)
    with pytest.raises(SessError, match="has classes of its own: leave prompts out"):
        sess_ray.load_model(f"hf:{tmp_path}", prompts=["a dog", "a cat"])


def test_transformers_speaks_as_before(tmp_path, capfd):
    zoo.saved("vit", tmp_path)
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    capfd.readouterr()
    sess_ray.load_model(f"hf:{tmp_path}")
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
