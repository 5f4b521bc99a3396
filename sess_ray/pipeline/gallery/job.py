"""The gallery job: a Ray Data graph from stored maps and their images to pages that a person looks at.

rows (image, target, where each run has its map)   a table in the driver, cut into blocks of some images
  -> draw                                          CPU tasks; thumbnails, and what the page says of each row
data/*.js, index.html                              in the driver, index.html last
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from sess_ray.access import Access, one_line, public, use
from sess_ray.boxes import boxes_region
from sess_ray.errors import SessError
from sess_ray.io.decode import decode
from sess_ray.io.groups import group_of
from sess_ray.io.maps import encode_map, map_of
from sess_ray.io.reading import stream_items
from sess_ray.io.store import Store, digest
from sess_ray.pipeline.cluster.rows import Row, tables
from sess_ray.pipeline.cluster.session import OF_TASKS, arriving, connect
from sess_ray.pipeline.evaluate.results import SIZES
from sess_ray.pipeline.gallery import pages
from sess_ray.pipeline.gallery.one_image import write_windows
from sess_ray.pipeline.gallery.prepare import GALLERY, Gallery, predicted_names

BLOCK_IMAGES, MOST_IMAGES = 32, 256
BLOCKS = 1000  # before they become larger than the least
GROUPS_IN_MEMORY = 4  # row groups of maps, for each run
GROUPS = pa.schema([("items", pa.string())])  # JSON of the rows of one image
DRAWN = pa.schema(
    [
        ("number", pa.int64()),
        ("row", pa.string()),
        ("disagreement", pa.float64()),
        ("size", pa.float64()),  # share of the image that the target's boxes cover
        ("problem", pa.bool_()),  # no image, or a run without a map
    ]
)


def blocks(gallery: Gallery) -> list[pa.Table]:
    """Cut the rows: some images each, those of an image together, with the boxes that are drawn."""
    texts = []
    images = ((image_id, list(group)) for image_id, group in groupby(gallery.rows, key=itemgetter("image_id")))
    # As their maps lie, so that a task reads few row groups.
    for image_id, rows in sorted(images, key=lambda image: _place(image[1][0])):
        annotation = gallery.annotations.find(image_id) if gallery.annotations else None
        objects = annotation.objects if annotation else []
        for row in rows:
            own = gallery.labels.get((image_id, row["target"]), row["target_name"])
            known = any(thing.label == own for thing in objects)  # else nobody knows whose boxes they are
            row["boxes"] = [
                {
                    "box": [round(edge, 1) for edge in thing.box],
                    "label": thing.label,
                    "own": own == thing.label or not known,
                }
                for thing in objects
            ]
        texts.append(pages.as_json(rows))
    size = max(BLOCK_IMAGES, min(MOST_IMAGES, len(texts) // BLOCKS))
    return [pa.table({"items": texts[start : start + size]}, GROUPS) for start in range(0, len(texts), size)]


def _place(row: Row) -> tuple[int, str, int]:
    """Return the first run that has a map of a row, and where it is there."""
    return next((run, *place) for run, place in enumerate(row["places"]) if place)


def draw(table: pa.Table, access: Access, runs: list[str], output: str) -> Iterator[pa.Table]:
    """Write the thumbnails of a block; yield what the page says of each row."""
    use(access)
    groups = [json.loads(text) for text in table["items"].to_pylist()]
    yield from tables(_rows_of_pages(groups, runs, Store(output)), DRAWN)


def _rows_of_pages(groups: list[list[Row]], runs: list[str], store: Store) -> Iterator[Row]:
    recent: dict[int, list[tuple[str, int, pa.Table]]] = {place: [] for place in range(len(runs))}

    def stored(place: int, file: str, line: int) -> Row:
        found = [one for one in recent[place] if one[0] == file and one[1] <= line < one[1] + len(one[2])]
        if not found:
            table, first = group_of(Store(runs[place]), file, line)
            found = [(file, first, table)]
            recent[place] = [*recent[place][1 - GROUPS_IN_MEMORY :], *found]
        [(_, first, table)] = found
        [row] = table.slice(line - first, 1).to_pylist()
        return row

    for number, content in stream_items([group[0]["uri"] for group in groups]):
        group = groups[number]
        name = digest([group[0]["image_id"]])
        photograph = _photograph(store, f"images/{name}.jpg", content)
        for row in group:
            found = [where and stored(place, *where) for place, where in enumerate(row["places"])]
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
    drawn: list[np.ndarray | None] = []
    for place, stored in enumerate(found):
        saliency = map_of(stored) if stored else None
        if stored is None or saliency is None:
            maps.append(None)
            drawn.append(None)
            continue
        small = pages.small_map(saliency)
        file = f"maps/{place}/{name}-{row['target']}.png"
        store.write(file, encode_map(small))
        drawn.append(small)
        peak = [stored["peak_x"], stored["peak_y"]]
        maps.append({"file": file, "peak": peak, "kept": stored["num_kept"], "patches": stored["num_patches"]})
    first = next(stored for stored in found if stored)
    told = {name: first[name] for name in ("height", "width", "target")} | photograph
    told |= {"id": row["image_id"], "uri": public(row["uri"]), "boxes": row["boxes"], "maps": maps}
    told["windows"] = row.get("windows")
    told["levels"] = f"{name}-{row['target']}"
    store.write(f"levels/{told['levels']}.js", pages.levels(told["levels"], drawn))
    own = np.array([thing["box"] for thing in row["boxes"] if thing["own"]])
    apart = pages.disagreement([one for one in drawn if one is not None])
    return {
        "number": row["number"],
        "row": pages.as_json(told),
        "disagreement": None if apart is None else round(apart, 4),
        "size": round(float(boxes_region(own, first["height"], first["width"]).mean()), 4) if len(own) else None,
        "problem": photograph["image"] is None or None in maps,
    }


def run(gallery: Gallery, progress: Any = None) -> None:
    """Make a gallery: thumbnails, data, and, last, its index.html.

    Parameters
    ----------
    gallery : Gallery
    progress : callable, optional
        Called with 1 for each row.
    """
    import ray

    config, store = gallery.config, gallery.store
    connect(config.address)
    store.clear(GALLERY)
    if config.window_pages:
        write_windows(gallery, config.window_pages)
    places = [Store(url).location for url in config.runs().values()]
    given = {"access": config.access(), "runs": places, "output": store.location}
    dataset = ray.data.from_blocks(blocks(gallery)).map_batches(draw, fn_kwargs=given, **OF_TASKS)
    write_pages(gallery, arriving(dataset), progress)


def write_pages(gallery: Gallery, rows: Iterable[Row], progress: Any = None) -> None:
    """Write the data of rows as they are drawn, in any order, and then the pages."""
    store, count = gallery.store, len(gallery.rows)
    texts = [""] * count
    values: dict[str, list[float | None]] = {name: [None] * count for name in ("disagreement", "size", "problem")}
    for drawn in rows:
        texts[drawn["number"]] = drawn["row"]
        for name, column in values.items():
            column[drawn["number"]] = drawn[name]
        if progress:
            progress(1)
    for number in range(0, count, pages.ROWS):
        content = pages.chunk(number // pages.ROWS, texts[number : number + pages.ROWS])
        store.write(f"data/{number // pages.ROWS}.js", content)
    store.write("data/index.js", pages.index(_facts(gallery) | values))
    for name, content in pages.page("gallery").items():
        store.write(name, content)


def _facts(gallery: Gallery) -> dict[str, Any]:
    """Return what filters and orders need of all rows, as far as it is known before they are drawn."""
    rows, runs = gallery.rows, gallery.config.runs()
    names = predicted_names(Store(next(iter(runs.values()))), {row["predicted"] for row in rows})
    ids = {image_id: place for place, image_id in enumerate(dict.fromkeys(row["image_id"] for row in rows))}
    return {
        "count": len(rows),
        "chunk": pages.ROWS,
        "runs": list(runs),
        "names": names | {row["target"]: row["target_name"] for row in rows},
        "groups": {row["target"]: row["target_classes"] for row in rows if row.get("target_classes")},
        "ids": list(ids),
        "image": [ids[row["image_id"]] for row in rows],
        "target": [row["target"] for row in rows],
        "predicted": [row["predicted"] for row in rows],
        "score": [round(row["score"], 4) for row in rows],
        "sizes": list(SIZES.items()),
        "metrics": gallery.metrics,
    }
