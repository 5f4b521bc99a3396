"""Zero-shot classifiers: their classes are prompts, and a logit is the scaled similarity of an image and a prompt.

Prompts are encoded once, when the model is loaded; what scores windows is the image encoder alone.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sess_ray.access import one_line, shown
from sess_ray.errors import SessError
from sess_ray.models.huggingface import image_processor, image_size, speaking, transformers
from sess_ray.models.processors import preprocessing
from sess_ray.models.source import Source

AT_ONCE = 64  # prompts
TOLERANCE = 1e-4  # of logits, as a share of the largest


class ZeroShot(nn.Module):
    """Scores images by the similarity of their embedding to those of prompts.

    Parameters
    ----------
    tower : nn.Module
        The image encoder.
    encode : callable
        (tower, images (N, 3, h, w)) to embeddings (N, D).
    prompts : Tensor, (C, D)
        Embeddings of length 1.
    scale, bias : float
        A logit is scale x cosine + bias.
    """

    def __init__(
        self,
        tower: nn.Module,
        encode: Callable[[nn.Module, Tensor], Tensor],
        prompts: Tensor,
        scale: float,
        bias: float,
    ) -> None:
        super().__init__()
        self.tower, self.encode = tower, encode
        self.scale, self.bias = scale, bias
        self.prompts: Tensor
        self.register_buffer("prompts", prompts.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        found = self.encode(self.tower, images)
        found = found / found.norm(dim=1, keepdim=True)
        return self.scale * found @ self.prompts.T + self.bias


def checked(prompts: Sequence[str] | None, name: str) -> tuple[str, ...]:
    """Return prompts without spaces around them; `SessError` where they cannot be told apart."""
    if isinstance(prompts, str):
        raise SessError(f"prompts are a list of texts, such as {[part.strip() for part in prompts.split(';')]}")
    found = tuple(prompt.strip() for prompt in prompts or () if prompt.strip())
    if not found:
        raise SessError(f'{name} tells prompts apart: give --prompts FILE, or --targets "a dog; a cat"')
    if len(set(found)) < len(found):
        twice = next(prompt for prompt in found if found.count(prompt) > 1)
        raise SessError(f"prompt {twice!r} is there twice")
    if len(found) == 1:
        raise SessError(f"{name} compares prompts, and {found[0]!r} is the only one: give another beside it")
    return found


def _agree(module: ZeroShot, images: Tensor, wanted: Tensor, name: str) -> None:
    """Refuse a model whose own logits are not scaled similarities."""
    with torch.no_grad():
        given = module(images)
    if given.shape != wanted.shape or (given - wanted).abs().max() > TOLERANCE * wanted.abs().max():
        raise SessError(f"{name}: its logits are not scaled similarities of image and text: that is not supported")


# --- Hugging Face transformers ---


def clip(name: str, options: dict[str, Any], config: Any, prompts: Sequence[str] | None) -> Source:
    """Return how to build CLIP, SigLIP or another model of two encoders, for some prompts.

    Parameters
    ----------
    name : str
        For messages.
    options : dict
        Arguments of `from_pretrained`.
    config : PretrainedConfig
    prompts : sequence of str or None
    """
    sigmoid = "siglip" in config.model_type
    wanted = checked(prompts, name)
    size = image_size(getattr(config, "vision_config", None))
    pixels = preprocessing(image_processor(name, options), name, size)
    if pixels.reverses:
        raise SessError(f"{name}: blue, green, red images are not supported of zero-shot models")

    def build(weights: str, _: int | None) -> nn.Module:
        _only_pretrained(weights, name)
        with speaking(name):
            network, told = transformers().AutoModel.from_pretrained(
                **options, dtype=torch.float32, output_loading_info=True
            )
            tokenizer = transformers().AutoTokenizer.from_pretrained(**options)
            if told["missing_keys"]:
                raise SessError(f"{name}: weights are missing, such as {min(told['missing_keys'])}")
            return _two_encoders(network.eval(), tokenizer, wanted, pixels.size, name)

    return Source(
        build, pixels.size, pixels.mean, pixels.std, wanted, "sigmoid" if sigmoid else "softmax", verbatim=True
    )


def _two_encoders(network: Any, tokenizer: Any, prompts: tuple[str, ...], size: tuple[int, int], name: str) -> ZeroShot:
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    embeddings, logits = [], []
    for begin in range(0, len(prompts), AT_ONCE):
        words = _tokens(network.config, tokenizer, prompts[begin : begin + AT_ONCE])
        with torch.no_grad():
            output = network(pixel_values=images, **words)
        embeddings.append(output.text_embeds)
        logits.append(output.logits_per_image)
    scale = network.logit_scale.exp().item() if hasattr(network, "logit_scale") else 1 / network.temperature.item()
    bias = network.logit_bias.item() if hasattr(network, "logit_bias") else 0.0
    module = ZeroShot(_without_text(network, images), _embedding, torch.cat(embeddings), scale, bias)
    _agree(module, images, torch.cat(logits, 1), name)
    return module


def _tokens(config: Any, tokenizer: Any, prompts: tuple[str, ...]) -> Any:
    longest = config.text_config.max_position_embeddings
    counts = [len(found) for found in tokenizer(list(prompts)).input_ids]
    for prompt, count in zip(prompts, counts, strict=True):
        if count > longest:
            raise SessError(f"prompt {prompt[:40]!r}... has {count} tokens, and the model takes {longest}")
    # SigLIP was trained on texts of one length.
    padding = {"padding": "max_length", "max_length": longest} if "siglip" in config.model_type else {"padding": True}
    return tokenizer(list(prompts), return_tensors="pt", **padding)


def _embedding(tower: Any, images: Tensor) -> Tensor:
    found = tower.get_image_features(pixel_values=images)
    return found if isinstance(found, Tensor) else found.pooler_output


def _without_text(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a model without the parts that images do not go through."""
    used: set[str] = set()
    handles = [
        child.register_forward_hook(lambda *_, name=name: used.add(name)) for name, child in network.named_children()
    ]
    with torch.no_grad():
        _embedding(network, images)
    for handle in handles:
        handle.remove()
    tower = copy.copy(network)
    tower._modules = {name: child for name, child in network.named_children() if name in used}
    return tower


# --- open_clip ---


def open_clip(place: str, prompts: Sequence[str] | None) -> Source:
    """Return how to build a model of open_clip, for some prompts.

    Parameters
    ----------
    place : str
        An architecture and the tag of its weights, ``ViT-B-32/laion2b_s34b_b79k``; ``hf-hub:NAME``; or
        ``local-dir:FOLDER``.
    prompts : sequence of str or None
    """
    name = f"open_clip:{place}"
    try:
        import open_clip as library
    except ImportError as error:
        raise SessError("models named open_clip: need open_clip: install sess-ray[open-clip]") from error
    architecture, tag = (place, None) if ":" in place else place.partition("/")[::2]
    if tag == "":
        tags = library.list_pretrained_tags_by_model(architecture)
        some = f"such as {', '.join(tags[:3])}" if tags else "of which this version knows none"
        raise SessError(f"{name}: say which weights, open_clip:{architecture}/TAG, {some}")
    logging.disable()  # else it says twice what it cannot do
    try:
        network = library.create_model(architecture, pretrained=tag, require_pretrained=True).eval()
        tokenizer = library.get_tokenizer(architecture)
    except Exception as error:
        raise SessError(f"cannot load {name}: {one_line(error)}") from shown(error)
    finally:
        logging.disable(logging.NOTSET)
    sigmoid = getattr(network, "logit_bias", None) is not None
    wanted = checked(prompts, name)
    pixels = library.get_model_preprocess_cfg(network)
    side = pixels["size"]
    size = (side, side) if isinstance(side, int) else (side[0], side[1])

    def build(weights: str, _: int | None) -> nn.Module:
        _only_pretrained(weights, name)
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = [
                network.encode_text(tokenizer(list(wanted[begin : begin + AT_ONCE])), normalize=True)
                for begin in range(0, len(wanted), AT_ONCE)
            ]
            scale, bias = network.logit_scale.exp().item(), network.logit_bias.item() if sigmoid else 0.0
            module = ZeroShot(network.visual, _tower, torch.cat(found), scale, bias)
            whole = network.encode_image(images, normalize=True) @ torch.cat(found).T * scale + bias
        _agree(module, images, whole, name)
        return module

    mean, std = (tuple(map(float, pixels[name])) for name in ("mean", "std"))
    return Source(build, size, mean, std, wanted, "sigmoid" if sigmoid else "softmax", verbatim=True)


def _tower(tower: nn.Module, images: Tensor) -> Tensor:
    return tower(images)


def _only_pretrained(weights: str, name: str) -> None:
    if weights != "pretrained":
        raise SessError(f"{name} brings its own weights: leave --weights out")
