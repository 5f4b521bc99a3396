"""FiftyOne's own layout of a dataset: images, maps as heatmaps, and JSON, as `FiftyOneDatasetImporter` reads it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

from sess_ray.io.maps import MAP_LEVELS
from sess_ray.io.store import Store
from sess_ray.pipeline.export.samples import Facts, Sample

CONTENTS = ("metadata.json", "samples.json", "fields", "data")
VERSION = "1.0.0"  # of FiftyOne, whose documents these are: later ones bring them up to date, earlier ones refuse them
MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_FIELDS, _LABELS = "fiftyone.core.fields", "fiftyone.core.labels"


def pack(samples: Iterable[Sample], store: Store, number: int, count: int) -> Iterator[str]:
    """Write images and maps; yield the document of each image."""
    del number, count
    for sample in samples:
        store.write(f"data/{sample.name}.{sample.kind}", sample.content)
        for rank, row in enumerate(sample.maps):
            store.write(f"fields/{heatmap(rank)}/{sample.name}.png", row["png"])
        yield json.dumps(_document(sample))


def heatmap(rank: int) -> str:
    """Return the field of an image's map, the likeliest target's first.

    >>> heatmap(0), heatmap(1)
    ('saliency', 'saliency_2')
    """
    return f"saliency_{rank + 1}" if rank else "saliency"


def _document(sample: Sample) -> dict[str, Any]:
    first = sample.maps[0]

    def label(kind: str, place: str, text: str, score: float, **more: Any) -> dict[str, Any]:
        known = {"_id": _id(sample.image_id, place), "_cls": kind, "tags": []}
        return {**known, **more, "label": text, "confidence": score}

    predicted = first["predicted_name"] or str(first["predicted"])
    targets = [
        label("Classification", f"targets {rank}", row["target_name"], row["score"])
        for rank, row in enumerate(sample.maps)
    ]
    maps = {
        heatmap(rank): label(
            "Heatmap",
            heatmap(rank),
            row["target_name"],
            row["score"],
            map_path=f"fields/{heatmap(rank)}/{sample.name}.png",
            range=[0.0, float(MAP_LEVELS)],
        )
        for rank, row in enumerate(sample.maps)
    }
    return {
        "_id": _id(sample.image_id, ""),
        "filepath": f"data/{sample.name}.{sample.kind}",
        "tags": [],
        "metadata": {
            "_cls": "ImageMetadata",
            "size_bytes": len(sample.content),
            "mime_type": MIME[sample.kind],
            "width": first["width"],
            "height": first["height"],
        },
        "_media_type": "image",
        "_rand": int(_digest(sample.image_id, "rand")[:8], 16) / 2**32,  # what FiftyOne shuffles by
        "image_id": sample.image_id,
        "predicted": label("Classification", "predicted", predicted, first["predicted_score"]),
        "targets": {"_cls": "Classifications", "classifications": targets},
        **maps,
    }


def _digest(image_id: str, place: str) -> str:
    return hashlib.sha256(json.dumps([image_id, place]).encode()).hexdigest()


def _id(image_id: str, place: str) -> dict[str, str]:
    """Return an id of MongoDB's that is the same in every export."""
    return {"$oid": _digest(image_id, place)[:24]}


def finish(documents: Iterable[str], store: Store, facts: Facts) -> None:
    """Write samples.json as documents come, and metadata.json."""
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, "samples.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"samples": [')
            file.writelines(f"{',' if place else ''}\n{document}" for place, document in enumerate(documents))
            file.write("\n]}\n")
        store.put("samples.json", path)
    store.write_json("metadata.json", metadata(facts.most_targets))


def metadata(most_targets: int) -> dict[str, Any]:
    """Return what FiftyOne has of a dataset beside its samples: the types of its fields."""
    known = [_field("id", "ObjectIdField", stored="_id"), _field("tags", "ListField", subfield="StringField")]
    text = [*known, _field("label", "StringField"), _field("confidence", "FloatField")]
    place = [_field("map", "ArrayField"), _field("map_path", "StringField")]
    place.append(_field("range", "HeatmapRangeField", subfield="FloatField"))
    sizes = [_field(name, "IntField") for name in ("size_bytes", "width", "height", "num_channels")]
    each = _field(
        "classifications", "ListField", subfield="EmbeddedDocumentField", document="Classification", fields=text
    )
    image = _embedded("metadata", "fiftyone.core.metadata.ImageMetadata", [*sizes, _field("mime_type", "StringField")])
    fields = [
        *known,
        _field("filepath", "StringField"),
        image,
        *(_field(name, "DateTimeField", read_only=True) for name in ("created_at", "last_modified_at")),
        _field("_rand", "FloatField"),
        _field("_media_type", "StringField"),
        _field("_dataset_id", "ObjectIdField"),
        _field("image_id", "StringField"),
        _embedded("predicted", f"{_LABELS}.Classification", text),
        _embedded("targets", f"{_LABELS}.Classifications", [each]),
        *(_embedded(heatmap(rank), f"{_LABELS}.Heatmap", [*text, *place]) for rank in range(most_targets)),
    ]
    return {"version": VERSION, "media_type": "image", "sample_fields": fields, "info": {}, "app_config": {}}


def _field(
    name: str,
    kind: str,
    *,
    subfield: str | None = None,
    document: str | None = None,
    fields: list[dict[str, Any]] | None = None,
    stored: str | None = None,
    read_only: bool = False,
) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": f"{_FIELDS}.{kind}",
        "subfield": subfield and f"{_FIELDS}.{subfield}",
        "embedded_doc_type": document and f"{_LABELS}.{document}",
        "fields": fields or [],
        "db_field": stored or name,
        "description": None,
        "info": None,
        "read_only": read_only,
        "created_at": None,
    }


def _embedded(name: str, document: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return _field(name, "EmbeddedDocumentField", fields=fields) | {"embedded_doc_type": document}
