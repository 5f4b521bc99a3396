"""WebDataset's layout: tar files with an image, its map and JSON for each map."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from tempfile import TemporaryDirectory

from sess_ray.io.store import Store
from sess_ray.pipeline.export.samples import FACTS, Facts, Sample

CONTENTS = ("shards",)


def pack(samples: Iterable[Sample], store: Store, number: int, count: int) -> Iterator[str]:
    """Write a tar file; all samples have the same members, as `datasets` wants it, so each map comes with its image."""
    del count
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, "shard.tar")
        told = []
        with tarfile.open(path, "w") as tar:
            for place, sample in enumerate(samples):
                for rank, row in enumerate(sample.maps):
                    facts = json.dumps({name: row[name] for name in FACTS}).encode()
                    for end, content in (("jpg", sample.content), ("json", facts), ("saliency.png", row["png"])):
                        _add(tar, f"{number:05}-{place:06}-{rank}.{end}", content)
                told.append("")
        if told:
            store.put(f"shards/{number:05}.tar", path)
    yield from told


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def finish(documents: Iterable[str], store: Store, facts: Facts) -> None:
    """Wait for all shards."""
    del store, facts
    for _ in documents:
        pass
