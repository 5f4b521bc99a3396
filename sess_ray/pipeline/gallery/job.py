"""The gallery job: a Ray Data graph from stored maps and their images to pages that a person looks at.

rows (image, target, where each run has its map)   a table in the driver, cut into blocks of some images
  -> draw                                          CPU tasks; thumbnails, and what the page says of each row
data/*.js, index.html                              in the driver, index.html last
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from sess_ray.access import Access, one_line, public, use
from sess_ray.errors import SessError
from sess_ray.io.decode import decode
from sess_ray.io.maps import encode_map, map_of
from sess_ray.io.reading import stream_items
from sess_ray.io.store import Store, digest
from sess_ray.pipeline.cluster.rows import Row, tables
from sess_ray.pipeline.cluster.session import OF_TASKS, arriving, connect
from sess_ray.pipeline.gallery import pages
from sess_ray.pipeline.gallery.prepare import GALLERY, Gallery, predicted_names

BLOCK_IMAGES = 32
GROUPS = pa.schema([("items", pa.string())])  # JSON of the rows of one image
DRAWN = pa.schema([("number", pa.int64()), ("row", pa.string()), ("disagreement", pa.float64())])


def blocks(gallery: Gallery) -> list[pa.Table]:
    """Cut the rows: some images each, those of an image together, with the boxes that are drawn."""
    texts = []
    for image_id, group in groupby(gallery.rows, key=lambda row: row["image_id"]):
        annotation = gallery.annotations.find(image_id) if gallery.annotations else None
        objects = annotation.objects if annotation else []
        rows = list(group)
        for row in rows:
            own = gallery.labels.get((image_id, row["target"]))
            row["boxes"] = [
                {"box": [round(edge, 1) for edge in thing.box], "label": thing.label, "own": own in (None, thing.label)}
                for thing in objects
            ]
        texts.append(pages.as_json(rows))
    return [
        pa.table({"items": texts[start : start + BLOCK_IMAGES]}, GROUPS) for start in range(0, len(texts), BLOCK_IMAGES)
    ]


def draw(table: pa.Table, access: Access, runs: list[str], output: str) -> Iterator[pa.Table]:
    """Write the thumbnails of a block; yield what the page says of each row."""
    use(access)
    groups = [json.loads(text) for text in table["items"].to_pylist()]
    yield from tables(_rows_of_pages(groups, runs, Store(output)), DRAWN)


def _rows_of_pages(groups: list[list[Row]], runs: list[str], store: Store) -> Iterator[Row]:

    @cache
    def stored(place: int, file: str) -> pa.Table:
        return Store(runs[place]).read_table(file)

    for number, content in stream_items([group[0]["uri"] for group in groups]):
        group = groups[number]
        name = digest([group[0]["image_id"]])
        photograph = _photograph(store, f"images/{name}.jpg", content)
        for row in group:
            found = [
                where and stored(place, where[0]).slice(where[1], 1).to_pylist()[0]
                for place, where in enumerate(row["places"])
            ]
            yield _drawn(store, row, name, photograph, found)


def _photograph(store: Store, name: str, content: bytes | Exception) -> dict[str, str | None]:
    """Write a thumbnail; return its name, or why there is none."""
    try:
        if isinstance(content, Exception):
            return {"image": None, "error": one_line(content)}
        store.write(name, pages.jpeg(Image.fromarray(decode(content))))
    except SessError as error:
        return {"image": None, "error": str(error)}
    return {"image": name, "error": None}


def _drawn(store: Store, row: Row, name: str, photograph: dict[str, str | None], found: list[Row | None]) -> Row:
    """Write the small maps of a row; return what the page says of it."""
    maps: list[dict[str, Any] | None] = []
    drawn = []
    for place, stored in enumerate(found):
        saliency = map_of(stored) if stored else None
        if stored is None or saliency is None:
            maps.append(None)
            continue
        drawn.append(pages.small_map(saliency))
        file = f"maps/{place}/{name}-{row['target']}.png"
        store.write(file, encode_map(drawn[-1]))
        peak = [stored["peak_x"], stored["peak_y"]]
        maps.append({"file": file, "peak": peak, "kept": stored["num_kept"], "patches": stored["num_patches"]})
    first = next(stored for stored in found if stored)
    told = {name: first[name] for name in ("height", "width", "target")} | photograph
    told |= {"id": row["image_id"], "uri": public(row["uri"]), "boxes": row["boxes"], "maps": maps}
    return {"number": row["number"], "row": pages.as_json(told), "disagreement": pages.disagreement(drawn)}


def run(gallery: Gallery, progress: Any = None) -> None:
    """Make a gallery: thumbnails, data, and, last, its index.html.

    Parameters
    ----------
    gallery : Gallery
    progress : callable, optional
        Called with 1 for each row.
    """
    import ray

    config, store, rows = gallery.config, gallery.store, gallery.rows
    connect(config.address)
    store.clear(GALLERY)
    runs = config.runs()
    places = [Store(url).location for url in runs.values()]
    given = {"access": config.access(), "runs": places, "output": store.location}
    dataset = ray.data.from_blocks(blocks(gallery)).map_batches(draw, fn_kwargs=given, **OF_TASKS)
    texts = [""] * len(rows)
    apart = np.full(len(rows), np.nan)
    for drawn in arriving(dataset):
        texts[drawn["number"]] = drawn["row"]
        apart[drawn["number"]] = np.nan if drawn["disagreement"] is None else drawn["disagreement"]
        if progress:
            progress(1)
    for number in range(0, len(rows), pages.ROWS):
        store.write(
            f"data/{number // pages.ROWS}.js", pages.chunk(number // pages.ROWS, texts[number : number + pages.ROWS])
        )
    names = {row["target"]: row["target_name"] for row in rows}
    facts = {
        "count": len(rows),
        "chunk": pages.ROWS,
        "runs": list(runs),
        "names": predicted_names(Store(places[0]), {row["predicted"] for row in rows}) | names,
        "target": [row["target"] for row in rows],
        "predicted": [row["predicted"] for row in rows],
        "score": [round(row["score"], 4) for row in rows],
        "disagreement": [round(value, 4) for value in apart.tolist()] if len(runs) > 1 else None,
        "metrics": gallery.metrics,
    }
    store.write("data/index.js", pages.index(facts))
    for name, content in pages.page("gallery").items():
        store.write(name, content)
