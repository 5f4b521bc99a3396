"""Weights from files: state dicts, found in what training loops put around them, under the names that a model has."""

from __future__ import annotations

import argparse
import difflib
import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sess_ray.access import one_line, public
from sess_ray.errors import SessError
from sess_ray.small import read_small

State = dict[str, Tensor]

# Of heads that are there while one trains, and left out of what a model says: GoogLeNet's and Inception's.
TRAINING_ONLY = ("aux1.", "aux2.", "AuxLogits.")
LFS = b"version https://git-lfs"
ZIP, PICKLE = b"PK", b"\x80"  # what torch's files begin with
_NUMPY: tuple[Any, ...] = (np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0])  # scalar, _reconstruct
# What training loops leave beside the weights: flags, folders, and NumPy's numbers. There is no code in them.
PLAIN: list[Any] = [
    *(argparse.Namespace, SimpleNamespace, np.ndarray, np.dtype),
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    # As NumPy is called before 2, and since.
    *((make, f"{place}.multiarray.{make.__name__}") for make in _NUMPY for place in ("numpy.core", "numpy._core")),
    # Neither system can make the other's paths; and Python 3.13 calls the module otherwise.
    *((PurePath, f"{place}.{kind}Path") for kind in ("Posix", "Windows") for place in ("pathlib", "pathlib._local")),
]
SHOWN = 3  # keys, of those that are too many
LIKE = 0.5  # of difflib: how alike a name has to be


def read_state(path: str, wanted: Iterable[str] = ()) -> tuple[State, tuple[str, ...]]:
    """Read a state dict, by the names that are wanted, without running anything that may be in the file.

    Returns
    -------
    dict of str to Tensor
    tuple of str
        What was opened to find it, outermost first.

    Raises
    ------
    SessError
        If the file holds code, no state dict, or several.
    """
    content, place = read_small(path, "weights"), f"weights {public(path)!r}"
    if content.startswith(LFS):
        raise SessError(f"{place} are a pointer of Git LFS, not the file that it stands for: git lfs pull")
    if content[8:9] == b"{":  # behind the length of a header of JSON: of safetensors, whatever the file is called
        from safetensors.torch import load

        try:
            return load(content), ()
        except Exception as error:
            raise SessError(f"{place} are not a safetensors file: {one_line(error)}") from error
    return opened(_unpickled(content, place), place, wanted)


def _unpickled(content: bytes, place: str) -> object:
    if _is_script(content):
        raise SessError(f"{place} are TorchScript, which hides its layers: save a state dict of the model itself")
    if not content.startswith((ZIP, PICKLE)):
        seen = ", but a web page" if content.lstrip().startswith(b"<") else ""
        raise SessError(f"{place} are no file of torch or of safetensors{seen}: download them again, or save them anew")
    try:
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own words are advice to run what is in the file
        text = str(error)
    if "GLOBAL" in text or "Unsupported class" in text or "Unsupported operand" in text or "persistent_load" in text:
        what = text.partition("GLOBAL ")[2].partition(" ")[0]
        raise SessError(
            f"{place} hold pickled code{f' ({what})' if what else ''} beside tensors, which is never run:"
            " save a state dict, torch.save(model.state_dict(), FILE)"
        )
    raise SessError(f"{place} are no state dict that torch can read: save one, torch.save(model.state_dict(), FILE)")


def _is_script(content: bytes) -> bool:
    """Say whether a file is of torch.jit.save, as torch.load itself would: a zip file with constants."""
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except zipfile.BadZipFile:
        return False
    return any(name.rpartition("/")[2] == "constants.pkl" for name in names)


def opened(found: object, place: str, wanted: Iterable[str] = ()) -> tuple[State, tuple[str, ...]]:
    """Return the state dict inside of what a training loop has saved, and the names of what is around it.

    If there are several, such as an optimiser's, the one that has the wanted names, behind any prefix, is taken.

    Examples
    --------
    >>> weight = torch.zeros(1)
    >>> opened({"epoch": 3, "model": {"net": {"fc.bias": weight}}}, "these weights")
    ({'fc.bias': tensor([0.])}, ('model', 'net'))
    >>> opened({"optim": {"state": {0: {"step": weight}}}, "model": {"fc.bias": weight}}, "these weights", ["fc.bias"])
    ({'fc.bias': tensor([0.])}, ('model',))
    """
    states = dict(_state_dicts(found))
    if not states:
        raise SessError(f"{place} hold no state dict (a dict of tensors), but {_described(found)}")
    names = set(wanted)
    counts = {path: len({name for key in state for name in _ends(key)} & names) for path, state in states.items()}
    best = max(counts.values())
    if best:
        states = {path: state for path, state in states.items() if 2 * counts[path] > best}
    elif names:  # none fits: say so of the largest
        states = dict([max(states.items(), key=lambda one: len(one[1]))])
    (path, state), *others = states.items()
    if others:
        listed = _few([" / ".join(one) for one in states])
        opening = "".join(f"[{key!r}]" for key in path)
        raise SessError(
            f"{place} hold {len(states)} state dicts ({listed}): save the one that is meant, such as"
            f" torch.save(torch.load(FILE){opening}, OTHER)"
        )
    return state, path


def _state_dicts(found: object, *path: str) -> Iterator[tuple[tuple[str, ...], State]]:
    """Yield the dicts of tensors in what was saved, each behind the names of what is around it."""
    if not isinstance(found, Mapping):
        return
    own = {str(key): value for key, value in found.items() if not str(key).endswith("_extra_state")}
    if own and all(isinstance(value, Tensor) for value in own.values()):
        yield path, own
        return
    for key, value in own.items():
        yield from _state_dicts(value, *path, key)


def _ends(key: str) -> list[str]:
    """Return a name, and what is left of it without the first parts.

    >>> _ends("module.fc.bias")
    ['module.fc.bias', 'fc.bias', 'bias']
    """
    parts = key.split(".")
    return [".".join(parts[number:]) for number in range(len(parts))]


def _described(found: object) -> str:
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    return f"a dict of {', '.join(map(str, list(found)[:SHOWN])) or 'nothing'}"


def renamed(state: Mapping[str, Tensor], wanted: Iterable[str], what: str) -> tuple[State, str]:
    """Return a state dict without the prefix that wrappers put before a model's names, and the prefix.

    What lies beside the prefix, such as the weights of a loss, is left out.

    Raises
    ------
    SessError
        If all wanted keys are there behind several prefixes.

    Examples
    --------
    >>> one = torch.zeros(1)
    >>> renamed({"module.net.fc.bias": one, "loss.weight": one}, ["fc.bias"], "these weights")
    ({'fc.bias': tensor([0.])}, 'module.net.')
    """
    names = set(wanted)
    counts: Counter[str] = Counter()
    for key in state:
        counts.update(key.removesuffix(end) for end in _ends(key)[1:] if end in names)
    if not names or names <= state.keys() or not counts:
        return dict(state), ""
    whole = [prefix for prefix, count in counts.items() if count == len(names)]
    if len(whole) > 1:
        raise SessError(f"{what} hold the model {len(whole)} times, behind {', '.join(whole)}: save the one meant")
    [(prefix, count), *_] = counts.most_common(1)
    common = all(key.startswith(prefix) for key in state)
    if not whole and (not common or count <= len(names & state.keys())):
        return dict(state), ""
    prefix = whole[0] if whole else prefix
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}, prefix


def needed(module: nn.Module) -> State:
    """Return the weights that a model's outputs depend on, and that a file has to hold."""
    state = module.state_dict()
    return {key: value for key, value in state.items() if not key.startswith(TRAINING_ONLY)}


def misfit(state: Mapping[str, Tensor], module: nn.Module) -> str:
    """Return in words which keys do not fit a module; empty where all do."""
    expected = needed(module)
    own = {key: value for key, value in state.items() if not key.startswith(TRAINING_ONLY)}
    missing = [key for key in expected if key not in own and not key.endswith("num_batches_tracked")]
    excess = [key for key in own if key not in expected]
    wrong = [key for key in expected if key in own and own[key].shape != expected[key].shape]
    told = []
    if missing:
        near = difflib.get_close_matches(missing[0], excess, n=1, cutoff=LIKE)
        told.append(f"{len(missing)} of {len(expected)} missing (such as {missing[0]}{_like(near)})")
    if excess:
        told.append(f"{len(excess)} unexpected ({_few(excess)})")
    if wrong:
        shapes = f"{tuple(own[wrong[0]].shape)} for {tuple(expected[wrong[0]].shape)}"
        told.append(f"{len(wrong)} of another shape (such as {wrong[0]}, {shapes})")
    return ", ".join(told)


def _like(near: list[str]) -> str:
    return f", like {near[0]}" if near else ""


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def other_classes(state: Mapping[str, Tensor], module: nn.Module) -> int | None:
    """Return for how many classes weights are, where that is all in which they differ from a module's; else None."""
    expected = needed(module)
    both = [(state[key], value) for key, value in expected.items() if key in state and state[key].shape != value.shape]
    sizes = {own.shape[0] for own, value in both if own.ndim and own.shape[1:] == value.shape[1:]}
    alike = all(own.ndim and own.shape[1:] == value.shape[1:] for own, value in both)
    return sizes.pop() if len(sizes) == 1 and alike else None


def new_head(state: Mapping[str, Tensor], module: nn.Module) -> int | None:
    """Return for how many classes weights are, where the module of timm's has no classifier and they have its head."""
    told = getattr(module, "pretrained_cfg", None)
    head = state.get(f"{told.get('classifier')}.weight") if isinstance(told, Mapping) else None
    return len(head) if head is not None and getattr(module, "num_classes", None) == 0 else None


def filled(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load weights that fit; what only training needs is loaded where it fits, too."""
    expected: Any = module.state_dict()
    own = {key: value for key, value in state.items() if key in expected and value.shape == expected[key].shape}
    try:
        module.load_state_dict(own, strict=False)
    except RuntimeError as error:  # of sparse tensors, and of those without values
        raise SessError(f"{what} cannot be loaded: {one_line(error)}") from error
