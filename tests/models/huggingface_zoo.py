"""Tiny classifiers of Hugging Face transformers with random weights, as people have them in folders."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sess_ray.engine.cutting import Normalizer

NAMES = ["walrus", "sea otter, Enhydra lutris", "gull", "crab"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4}
PYRAMID = {"hidden_sizes": [8, 16], "depths": [1, 1], "image_size": 32}
PVT = {
    **PYRAMID,
    "num_encoder_blocks": 2,
    "num_attention_heads": [1, 2],
    "sequence_reduction_ratios": [2, 1],
    "mlp_ratios": [2, 2],
}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}

# Name of a configuration: what makes it small.
ARCHITECTURES = {
    "beit": VIT,
    "bit": {**STAGES, "num_groups": 4},
    "convnext": PYRAMID | {"num_stages": 2},
    "convnextv2": PYRAMID | {"num_stages": 2},
    "cvt": {
        "embed_dim": [8, 16],
        "num_heads": [1, 2],
        "depth": [1, 2],
        "mlp_ratio": [2.0, 2.0],
        **{key: [value] * 2 for key, value in {"attention_drop_rate": 0.0, "drop_rate": 0.0}.items()},
        "drop_path_rate": [0.0, 0.0],
        "qkv_bias": [True, True],
        "cls_token": [False, True],
        "qkv_projection_method": ["dw_bn", "dw_bn"],
        "kernel_qkv": [3, 3],
        "padding_kv": [1, 1],
        "stride_kv": [2, 2],
        "padding_q": [1, 1],
        "stride_q": [1, 1],
        "patch_sizes": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [2, 1],
    },
    "data2vec-vision": VIT,
    "deit": VIT,
    "dinov2": VIT,
    "dinov2_with_registers": VIT | {"num_register_tokens": 4},
    "efficientnet": {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 320},
    "focalnet": {
        "image_size": 32,
        "embed_dim": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    },
    "ijepa": VIT,
    "levit": {
        "image_size": 128,
        "hidden_sizes": [16, 16, 16],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "mobilenet_v1": {"image_size": 64, "depth_multiplier": 0.25},
    "mobilenet_v2": {"image_size": 64, "depth_multiplier": 0.25},
    "mobilevit": {
        "image_size": 64,
        "hidden_sizes": [16, 16, 16],
        "neck_hidden_sizes": [8, 8, 8, 8, 8, 16, 24],
        "num_attention_heads": 2,
    },
    "mobilevitv2": {"image_size": 64, "width_multiplier": 0.25, "base_attn_unit_dims": [32, 32, 32]},
    "poolformer": {**PYRAMID, "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1]},
    "pvt": PVT | {"patch_sizes": [4, 2], "strides": [4, 2]},
    "pvt_v2": PVT | {"num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2], "sr_ratios": [2, 1]},
    "regnet": {**STAGES, "groups_width": 8},
    "resnet": STAGES,
    "segformer": {**PVT, "sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "decoder_hidden_size": 8},
    "siglip": {"vision_config": VIT},
    "clip": {"vision_config": VIT},
    "swiftformer": {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [8, 8, 8, 16]},
    "swin": SWIN,
    "swinv2": SWIN,
    "donut-swin": SWIN,
    "vit": VIT,
    "vit_msn": VIT,
}
SECOND_HEADS = ("deit", "levit")  # those with a distillation token or head: "...ForImageClassificationWithTeacher"


@contextmanager
def no_hub():
    """Ask no hub, and do not wait until it is found that there is none."""
    import huggingface_hub.constants as hub

    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def normalised(image, mean, std):
    """Return an image as the engine normalises it, (1, 3, h, w)."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return Normalizer(mean, std, torch.device("cpu"))(pixels.flatten(1)[None]).view(1, *pixels.shape)


def by_hand(network, processor, image):
    """Return the logits of the library's own processor and model."""
    with torch.no_grad():
        return network(**processor(images=image, return_tensors="pt")).logits


def picture(size: int, seed: int = 0) -> Image.Image:
    """Return a picture of random colours."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def classifier(kind: str, *, teacher: bool = False, **options):
    """Return a tiny classifier of a kind, in evaluation mode, its weights random."""
    import transformers
    from transformers.models.auto import modeling_auto

    config = transformers.AutoConfig.for_model(kind, **(ARCHITECTURES[kind] | LABELS | options))
    config.num_labels = len(NAMES)
    found = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES[kind]
    torch.manual_seed(0)
    return lively(getattr(transformers, found if isinstance(found, str) else found[teacher])(config).eval())


def lively(network):
    """Return a network whose weights are so large that what goes in is seen in what comes out."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5)
    return network


def side(kind: str) -> int:
    """Return the side of an architecture's input."""
    settings = ARCHITECTURES[kind]
    return settings.get("vision_config", settings).get("image_size", 64)


def saved(kind: str, folder: Path, **options):
    """Write a classifier and an image processor of its size to a folder, and return both."""
    from transformers import ViTImageProcessor

    network = classifier(kind, **options)
    processor = ViTImageProcessor(size={"height": side(kind), "width": side(kind)}, image_mean=[0.4, 0.5, 0.6])
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network, processor


WORDS = ["<pad>", "<end>", "<unknown>", "a", "dog", "cat", "photo", "of", "two", ",", "sleeping"]
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 8,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": None,
}


def saved_encoders(kind: str, folder: Path):
    """Write a tiny CLIP or SigLIP, its tokenizer of `WORDS` and its image processor; return all three."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast, ViTImageProcessor

    projection = {"projection_dim": 12} if kind == "clip" else {}
    config = AutoConfig.for_model(kind, text_config={**TEXT, "projection_size": 16}, vision_config=VIT, **projection)
    torch.manual_seed(0)
    network = lively(AutoModel.from_config(config).eval())
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[2]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>", model_max_length=8
    )
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6])
    for part in (network, tokenizer, processor):
        part.save_pretrained(folder)
    return network, tokenizer, processor


def saved_open_clip(kind: str, folder: Path):
    """Write a tiny CLIP or SigLIP of open_clip to a folder; return it and its tokenizer."""
    import open_clip

    settings = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    } | ({"init_logit_bias": -1.0, "custom_text": True} if kind == "siglip" else {})
    pixels = {"mean": [0.4, 0.5, 0.6], "std": [0.5, 0.5, 0.5]}
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": pixels}))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    return network, open_clip.get_tokenizer(f"local-dir:{folder}")
