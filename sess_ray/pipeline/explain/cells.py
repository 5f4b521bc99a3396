"""The stages of a Ray Dataset of the user's own: its cells to pixels, and explained images to rows of maps.

Between them `ExplainActor` works as in the job. What else a row of the user's holds travels with its image as one cell,
an Arrow table of one row: so it keeps its types, and Ray may cut a block wherever it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from sess_ray.access import one_line, public
from sess_ray.engine.chosen import is_chosen
from sess_ray.errors import SessError
from sess_ray.io.decode import Sides, refuse_more_pixels, shrunk, to_rgb
from sess_ray.io.reading import read_items
from sess_ray.io.store import MAPS
from sess_ray.pipeline.cluster.isolation import survived
from sess_ray.pipeline.cluster.rows import Row, flat, tables
from sess_ray.pipeline.explain import metering
from sess_ray.pipeline.explain.stages import DECODED, died, map_rows

ERROR = pa.field("error", pa.string())
# Columns that say what an image is called and where it lies; the first that is there. Of Ray's include_paths, and of
# WebDataset.
ID_COLUMNS = ("image_id", "id", "path", "uri", "__key__")
URI_COLUMNS = ("uri", "path")
OWN = ("image_id", "uri")  # columns of maps that the user's rows may have: they are the same
Asked = str | list[str] | Callable[[dict[str, Any]], Any]  # of all images alike, or by their rows
CUBE = 3  # dimensions of an array of pixels and their channels


def check_columns(names: list[str], image_column: str, target_column: str | None) -> None:
    """Raise `SessError` where a dataset lacks a column, or has one that a map's own would replace."""
    for name in (image_column, target_column):
        if name is not None and name not in names:
            raise SessError(f"the dataset has no column {name!r}; it has: {', '.join(names)}")
    kept = [name for name in names if name not in (image_column, *OWN)]
    clash = [name for name in kept if name in (*MAPS.names, ERROR.name)]
    if clash:
        raise SessError(f"the dataset's columns {', '.join(clash)} are those of maps: rename them (rename_columns)")


def decode_cells(
    table: pa.Table,
    image_column: str,
    target_column: str | None,
    targets: Asked,
    max_pixels: int,
    needed: Sides | None,
) -> Iterator[pa.Table]:
    """Yield the images of a block of the user's with their pixels, or with the reason why there are none."""
    check_columns(table.column_names, image_column, target_column)

    def decoding(block: pa.Table) -> Iterator[pa.Table]:
        yield from tables(_decoded(block, image_column, target_column, targets, max_pixels, needed), DECODED)

    lost = partial(_lost, image_column=image_column)
    yield from survived(table, decoding, lambda: decoding, lost)


def _decoded(
    table: pa.Table,
    image_column: str,
    target_column: str | None,
    targets: Asked,
    max_pixels: int,
    needed: Sides | None,
) -> Iterator[Row]:
    cells = _cells(table[image_column])
    for cell, wanted, named in zip(
        cells, _wanted(table, image_column, target_column, targets), _named(table, image_column), strict=True
    ):
        stage, row = "targets", named
        path = cell.get("path") if isinstance(cell, Mapping) else cell if isinstance(cell, str) else None
        if path is not None and row["uri"] is None:
            row = {**row, "uri": public(path), "image_id": row["image_id"] or public(path)}
        try:
            row = row | _targets(wanted(), target_column)
            stage = "decode"
            with metering.spent("decode"):
                pixels, (height, width) = _pixels(cell, max_pixels, needed)
        except Exception as error:
            yield {**row, "stage": stage, "error": one_line(error)}
            continue
        rows, columns, _ = pixels.shape
        found = {"height": height, "width": width, "rows": rows, "columns": columns, "pixels": flat(pixels)}
        yield {**row, **found}


def _wanted(
    table: pa.Table, image_column: str, target_column: str | None, targets: Asked
) -> Iterator[Callable[[], Any]]:
    """Yield for each row what tells what to explain of its image."""
    if callable(targets):
        rows = table.drop_columns([image_column]).to_pylist() if table.num_columns > 1 else [{}] * table.num_rows
        yield from (partial(targets, row) for row in rows)
        return
    values = table[target_column].to_pylist() if target_column else [targets] * table.num_rows
    yield from (lambda value=value: value for value in values)


def _named(table: pa.Table, image_column: str) -> Iterator[Row]:
    """Yield what each row calls its image, with all that it holds besides."""
    rest = table.drop_columns([name for name in (image_column, *OWN) if name in table.column_names])
    names = [_column(table, known, image_column) for known in (ID_COLUMNS, URI_COLUMNS)]
    for index, (image_id, uri) in enumerate(zip(*names, strict=True)):
        carried = _packed(rest.slice(index, 1)) if rest.num_columns else None
        yield {"image_id": image_id, "uri": None if uri is None else public(uri), "carried": carried}


def _column(table: pa.Table, known: tuple[str, ...], image_column: str) -> list[str | None]:
    name = next((name for name in known if name in table.column_names and name != image_column), None)
    values = table[name].to_pylist() if name else [None] * table.num_rows
    return [None if value is None else str(value) for value in values]


def _cells(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yield the cells of a column of images, one after the other: bytes, structs, paths, or arrays of pixels."""
    for chunk in column.chunks:
        for index in range(len(chunk)):
            yield chunk[index].as_py()


def _targets(given: Any, column: str | None) -> Row:
    """Return what to explain of an image, as `DECODED` has it: "topK", "p>T", or classes by index or name."""
    if isinstance(given, np.ndarray):
        given = given.tolist()
    values = [value for value in (given if isinstance(given, list | tuple) else [given]) if value is not None]
    if not values:
        raise SessError(f"the row has no target in column {column!r}" if column else "targets gives none for the row")
    texts = [str(value).strip() for value in values]
    if len(texts) == 1 and is_chosen(texts[0]):
        return {"top": texts[0]}
    return {"names": texts}


def _pixels(cell: Any, max_pixels: int, needed: Sides | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Return (h, w, 3) uint8 of an image, and the height and width that it has."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, str):
        [cell] = read_items([cell])
        if isinstance(cell, Exception):
            raise cell
    if cell is None:
        raise SessError("the row has no image")
    if isinstance(cell, bytes):
        return shrunk(cell, max_pixels, needed)
    if isinstance(cell, np.ndarray):
        return _as_rgb(cell, max_pixels), (cell.shape[0], cell.shape[1])
    raise SessError(f"the image is {type(cell).__name__}: give (H, W, 3) uint8, the bytes of a file, or a path")


def _as_rgb(pixels: np.ndarray, max_pixels: int) -> np.ndarray:
    """Return pixels (H, W, 3) uint8 of an array that is those, or grey, or has an alpha channel."""
    if pixels.ndim == CUBE and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    channels = pixels.shape[2:]
    if pixels.dtype != np.uint8 or channels not in ((), (3,), (4,)) or pixels.ndim < CUBE - 1:
        raise SessError(f"the image is {pixels.dtype} {pixels.shape}: give uint8 (H, W, 3), (H, W, 4) or (H, W)")
    height, width = pixels.shape[:2]
    if not pixels.size:
        raise SessError("the image has no pixels")
    refuse_more_pixels(height, width, max_pixels)
    return pixels if channels == (3,) else np.asarray(to_rgb(Image.fromarray(pixels)))


def _lost(row: pa.Table, image_column: str) -> pa.Table:
    [named] = _named(row, image_column)
    return died(pa.Table.from_pylist([named]), DECODED, "decode")


def as_maps(table: pa.Table, method: str, model: str) -> Iterator[pa.Table]:
    """Yield the rows of maps of explained images, each with what its image's row held besides, and the errors."""
    for image in table.to_pylist():
        if image["error"] is None:
            rows = map_rows(image, method, model)
        else:
            known = {name: image[name] for name in OWN}
            rows = [{**known, "method": method, "model": model, "error": f"{image['stage']}: {image['error']}"}]
        found = pa.Table.from_pylist(rows, pa.schema([*MAPS, ERROR]))
        if image["carried"] is not None:
            carried = _unpacked(image["carried"]).take([0] * len(rows))
            for name in carried.column_names:
                found = found.append_column(carried.schema.field(name), carried[name])
        yield found


def _packed(row: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema) as writer:
        writer.write_table(row)
    return sink.getvalue().to_pybytes()


def _unpacked(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()
