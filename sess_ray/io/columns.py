"""Which columns of a table say where an image lies, what it is called and what it shows; which one holds its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from sess_ray.errors import SessError

URI_COLUMNS = ("uri", "url", "path", "file", "file_name", "filename", "image")
ID_COLUMNS = ("image_id", "id")
LABEL_COLUMNS = ("label", "class", "class_index")
TARGET_COLUMNS = ("targets", "target")
# Of bytes: the first that is there is meant, whatever else is.
BYTES_COLUMNS = ("image", "bytes", "image_bytes")
# So are these, where one of them is there; beside a column of places other names are none of images.
_KINDS = ("img", "jpg", "jpeg", "png", "webp", "tiff", "picture", "photo")
IMAGE_NAMES = (*_KINDS, *(f"{name}_bytes" for name in _KINDS))
PLACES_AS_BYTES = ("uri", "url", "path", "file_name", "filename")  # some writers do not mark text as such

_BYTES = ("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary")
_TEXTS = ("is_string", "is_large_string", "is_string_view")


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called that say something of an image; None where there is no such column.

    Attributes
    ----------
    uri, id, label, targets : str or None
    folder : str or None
        The column of the folders that images lie in below what was listed; see `listed_folders`.
    """

    uri: str | None
    id: str | None
    label: str | None
    targets: str | None
    folder: str | None = None


Row = dict[str, Any] | str  # the cells by column, or what is wrong with the row


@dataclass
class Table:
    """What is known of a table before its rows are read.

    Attributes
    ----------
    uri : str
    prefix : str or None
        What the ids begin with, where it is one of several tables.
    wanted : str or None
        The column of the images, where it is not found by itself.
    label : str or None
        The same of the labels.
    columns : Columns or None
        None in JSON Lines, where each row has its own.
    packed : str or None
        The column of image bytes.
    member : str
        What stands in front of a row's number where the bytes are read: the column, if it had to be named.
    names : dict of str to tuple of str
        The names of the classes, by the columns that hold their indices.
    """

    uri: str
    prefix: str | None = None
    wanted: str | None = None
    label: str | None = None
    columns: Columns | None = None
    packed: str | None = None
    member: str = ""
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)


def columns_of(names: Sequence[str]) -> Columns:
    """Find the columns of a table by their names: in any case, and with spaces around them.

    Raises
    ------
    SessError
        If two columns have one name.

    Examples
    --------
    >>> columns_of(["URI", " Label "])
    Columns(uri='URI', id=None, label=' Label ', targets=None, folder=None)
    """
    known: dict[str, str] = {}
    for name in names:
        plain = name.strip().lower()
        if plain in known and plain in (*URI_COLUMNS, *ID_COLUMNS, *LABEL_COLUMNS, *TARGET_COLUMNS):
            raise SessError(f"has two columns {plain!r}: rename one")
        known[plain] = name
    kinds = (URI_COLUMNS, ID_COLUMNS, LABEL_COLUMNS, TARGET_COLUMNS)
    return Columns(*(next((known[name] for name in kind if name in known), None) for kind in kinds))


def no_labels(wanted: str, names: Iterable[str]) -> SessError:
    """Return the error for a table that lacks the column of labels that is meant."""
    return SessError(f"has no column {wanted!r} of labels; it has: {', '.join(names)}")


# --- Parquet ---

LISTED = b"sess_ray.listed"  # in the metadata of a manifest that `sess-ray list` has written
FOLDER = "folder"  # there the column that says in which folder an image lies


def listed_folders(schema: pa.Schema) -> tuple[str, ...] | None:
    """Return all folders of the images of a manifest that `sess-ray list` has written.

    None where it has written no folders; none, where they are too many to be classes.
    """
    try:
        told = json.loads((schema.metadata or {})[LISTED])["folders"]
    except (KeyError, TypeError, ValueError):  # of another program, or of a table
        return None
    return tuple(map(str, told or ())) if FOLDER in schema.names else None


def places_in(schema: pa.Schema) -> list[str]:
    """Return the columns that may say where images are: those of text."""
    return [
        field.name
        for field in schema
        if _is(field.type, _TEXTS) or (_is(field.type, _BYTES) and field.name.strip().lower() in PLACES_AS_BYTES)
    ]


def image_column(schema: pa.Schema, wanted: str | None = None) -> str | None:
    """Return the column of image bytes, plain or in Hugging Face's struct of bytes and path; None where there is none.

    Parameters
    ----------
    schema : pa.Schema
    wanted : str, optional
        The column that is meant. One of text is none of bytes, but says where images are.

    Raises
    ------
    SessError
        If it is not there or of another type; or if none is named and several may be meant.
    """
    able = [field.name for field in schema if holds_bytes(field.type) and field.name not in places_in(schema)]
    if wanted is not None:
        if wanted not in (*able, *places_in(schema)):
            raise SessError(f"has no column {wanted!r} of images; {_advice(schema)}")
        return wanted if wanted in able else None
    for known in BYTES_COLUMNS:
        for name in able:
            if name.strip().lower() == known:
                return name
    features = _features(schema)
    meant = [name for name in able if _kind(features.get(name)) == "Image"]
    meant = meant or [name for name in able if name.strip().lower() in IMAGE_NAMES]
    if not meant and columns_of(places_in(schema)).uri is None:
        meant = able
    if len(meant) > 1:
        raise SessError(f"has several columns that may hold images ({', '.join(meant)}): give one as --image-column")
    return meant[0] if meant else None


def usual_column(schema: pa.Schema) -> str | None:
    """Return the column of image bytes where none is named; None also where several may be meant."""
    try:
        return image_column(schema)
    except SessError:
        return None


def no_images(schema: pa.Schema) -> SessError:
    """Return the error for a table in which no column says where images are."""
    return SessError(
        f"needs a column 'uri' (or {', '.join(URI_COLUMNS[1:])}), or one of image bytes; {_advice(schema)}"
    )


def _advice(schema: pa.Schema) -> str:
    able = [field.name for field in schema if holds_bytes(field.type) or field.name in places_in(schema)]
    listed = ", ".join(f"{field.name} ({_short(field.type)})" for field in schema)
    return f"it has: {listed}" + (f"; --image-column may be {' or '.join(able)}" if able else "")


def _short(kind: pa.DataType) -> str:
    return str(kind) if len(str(kind)) < 40 else f"{str(kind)[:36]} ..."


def holds_bytes(kind: pa.DataType) -> bool:
    """Say whether a column of this type can hold the bytes of images, or paths beside them."""
    kind = _plain(kind)
    if pa.types.is_struct(kind):
        at, path = kind.get_field_index("bytes"), kind.get_field_index("path")
        if at < 0:
            return path >= 0 and _is(kind.field(path).type, _TEXTS)
        return _is(kind.field(at).type, _BYTES) or pa.types.is_null(kind.field(at).type)
    return _is(kind, _BYTES)


def is_pathed(kind: pa.DataType) -> bool:
    """Say whether paths stand beside the bytes of a column of images."""
    return pa.types.is_struct(_plain(kind)) and _plain(kind).get_field_index("path") >= 0


def _is(kind: pa.DataType, tests: Iterable[str]) -> bool:
    checks: list[Callable[[pa.DataType], bool]] = [getattr(pa.types, name) for name in tests]
    return any(check(_plain(kind)) for check in checks)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, of a dictionary or of an extension type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    return _plain(kind.value_type) if pa.types.is_dictionary(kind) else kind


# --- what Hugging Face's datasets say of their columns ---


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each column that is a `ClassLabel`, or a list of such, in their order."""
    found = {}
    for column, feature in _features(schema).items():
        names = _names(feature)
        if names and column in schema.names:
            found[column] = names
    return found


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])
        features = told["info"]["features"]
    except (KeyError, TypeError, ValueError):  # of another program, or of none
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> str | None:
    return feature.get("_type") if isinstance(feature, dict) else None


def _names(feature: Any) -> tuple[str, ...]:
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if _kind(feature) in ("Sequence", "List", "LargeList"):
        return _names(feature.get("feature"))
    names = feature.get("names") if _kind(feature) == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()
