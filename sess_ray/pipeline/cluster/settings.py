"""The settings that all jobs share, and how flags are written."""

# Annotations are no text here: those of `RunsOnRay` are read from the modules of its subclasses.

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import fsspec

from sess_ray.access import Access, public_settings
from sess_ray.errors import SessError
from sess_ray.io.names import prompts_of
from sess_ray.pipeline.cluster.flags import CLUSTER, MODEL, STORAGE, check

_ACTORS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_SIDES = re.compile(r"\s*(\d{1,7})\s*(?:[x,*]\s*(\d{1,7})\s*)?", re.IGNORECASE)
# Of a task that reads or writes. Less than an actor's: two read while one waits for the network, and Ray does not fuse
# them into the actors.
TASK_CPUS = 0.5


@dataclass(frozen=True, kw_only=True)
class OpensUrls:
    """How URLs are opened: settings of all commands that read data.

    Parameters
    ----------
    storage_option
        An option of a protocol's file system as PROTOCOL.key=value, such as s3.endpoint_url=http://host:9000,
        s3.anon=true, s3.profile=NAME or s3.requester_pays=true; may be given several times.
    read_timeout
        Seconds that reading one file may take; then it is tried again.
    retry_seconds
        For how many seconds reads and writes are tried again after temporary failures.
    max_bytes
        Refuse larger files.
    """

    storage_option: Annotated[tuple[str, ...], STORAGE] = ()
    read_timeout: Annotated[float, STORAGE] = Access.timeout
    retry_seconds: Annotated[float, STORAGE] = Access.patience
    max_bytes: Annotated[int, STORAGE] = Access.max_bytes

    def check(self) -> None:
        """Refuse values out of range, empty text, and what is not an option of a file system; see `flags.check`."""
        check(vars(self))
        self.access()

    def access(self) -> Access:
        """Return how URLs are opened."""
        return Access(parse_options(self.storage_option), self.read_timeout, self.retry_seconds, self.max_bytes)

    def public(self) -> dict[str, Any]:
        """Return the settings as they may be written down, without credentials."""
        return public_settings(vars(self))


@dataclass(frozen=True, kw_only=True)
class RunsOnRay(OpensUrls):
    """How URLs are opened, and where Ray is: settings of all jobs that run on it.

    Parameters
    ----------
    address
        Ray cluster to use. By default $RAY_ADDRESS (which ray job submit sets), else this machine alone.
    """

    address: Annotated[str | None, CLUSTER] = None


def parse_options(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return options by protocol of ``PROTOCOL.key=value``; the value may be true, false or a JSON object.

    Examples
    --------
    >>> parse_options(["s3.endpoint_url=http://localhost:8333", "s3.anon=true", "gs.token=anon"])
    {'s3': {'endpoint_url': 'http://localhost:8333', 'anon': True}, 'gs': {'token': 'anon'}}
    """
    options: dict[str, dict[str, Any]] = {}
    for entry in given:
        name, sign, text = entry.partition("=")
        protocol, dot, key = name.strip().partition(".")
        if not (sign and dot and protocol and key):
            raise SessError(
                f"--storage-option {name}: use PROTOCOL.key=value, such as s3.endpoint_url=http://host:9000"
            )
        try:
            value = json.loads(text) if text in ("true", "false") or text.startswith("{") else text
        except ValueError as error:
            raise SessError(f"--storage-option {name}: its value is no JSON object") from error
        if protocol not in fsspec.available_protocols():
            raise SessError(
                f"--storage-option {name}: no file system is called {protocol}: use s3, gs, az, hf, http ..."
            )
        if options.setdefault(protocol, {}).setdefault(key, value) != value:
            raise SessError(f"--storage-option {name} is given twice, with two values: give one of them")
    return options


@dataclass(frozen=True, kw_only=True)
class ReadsModel:
    """What a caller says about a model; it overrides what is known of it.

    Parameters
    ----------
    input_size
        Side of the model's input in pixels, or its height and width, such as 256x128. By default what its weights'
        metadata say, else 224.
    mean
        Mean of R, G and B, in 0..1, with which the model's input is normalised, such as 0.485,0.456,0.406, or one
        number for all. By default what the metadata say, else ImageNet's.
    std
        Standard deviation of R, G and B, given as for --mean.
    activation
        How the model's logits become probabilities: softmax if classes exclude one another, sigmoid if each is a label
        that may be present, none if the outputs are probabilities already; auto decides by the model's configuration
        and outputs.
    prompts
        A text file with the classes of a zero-shot model such as CLIP, one prompt per line. By default the --targets of
        sess-ray explain, separated by semicolons.
    """

    input_size: Annotated[int | str | None, MODEL] = None
    mean: Annotated[str | None, MODEL] = None
    std: Annotated[str | None, MODEL] = None
    activation: Annotated[Literal["auto", "softmax", "sigmoid", "none"], MODEL] = "auto"
    prompts: Annotated[str | None, MODEL] = None

    def reading(self) -> dict[str, Any]:
        """Return the keyword arguments of `sess_ray.load_model`; the file of prompts is read."""
        return self.said() | {"prompts": prompts_of(vars(self))}

    def said(self) -> dict[str, Any]:
        """Return the same without prompts, so that no file is read."""
        return {
            "input_size": _sides(self.input_size),
            "mean": _numbers("--mean", self.mean),
            "std": _numbers("--std", self.std),
            "activation": self.activation,
        }


def _sides(given: int | str | None) -> int | tuple[int, int] | None:
    """Return the side of an input; for HEIGHTxWIDTH both."""
    if given is None or isinstance(given, int):
        return given
    found = _SIDES.fullmatch(given)
    if not found:
        raise SessError(
            f"--input-size {given}: use the side of the model's input in pixels, such as 224, or HEIGHTxWIDTH"
        )
    return (int(found[1]), int(found[2])) if found[2] else int(found[1])


def _numbers(flag: str, given: str | None) -> list[float] | None:
    if given is None:
        return None
    try:
        return [float(part) for part in given.split(",")]
    except ValueError:
        raise SessError(f"{flag} {given}: use three numbers, such as 0.485,0.456,0.406, or one") from None


def named_runs(given: Iterable[str]) -> dict[str, str]:
    """Return the places of runs by name, from the values of --run.

    Examples
    --------
    >>> named_runs(["base=out/base", "sess=s3://bucket/out"])
    {'base': 'out/base', 'sess': 's3://bucket/out'}
    """
    pairs = [entry.partition("=") for entry in given]
    for name, _, url in pairs:
        if not url or not name or "/" in name:
            raise SessError(f"--run {name}: use NAME=OUTPUT, such as sess=out/sess")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise SessError("--run: two runs have the same name")
    return {name: url for name, _, url in pairs}


def key_values(given: Iterable[str], flag: str) -> dict[str, str]:
    """Return what the values of a flag, each ``key=value``, say.

    Examples
    --------
    >>> key_values(["samples=4", " std = 0.1"], "--method-option")
    {'samples': '4', 'std': '0.1'}
    """
    pairs = [entry.partition("=") for entry in given]
    found: dict[str, str] = {}
    for key, sign, value in pairs:
        if not sign or not key.strip():
            raise SessError(f"{flag} {key}{sign}{value}: use key=value")
        if found.setdefault(key.strip(), value.strip()) != value.strip():
            raise SessError(f"{flag} {key}={found[key.strip()]} and {key}={value}: give one of them")
    return found


def actor_range(actors: str | None) -> tuple[int, int] | None:
    """Return (min, max) actors of a flag N or MIN-MAX, or None for as many as fit."""
    if actors is None:
        return None
    found = _ACTORS.fullmatch(actors.strip())
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= low <= high:
        raise SessError(f"--actors {actors}: use N or MIN-MAX, such as 4 or 2-16")
    return low, high
