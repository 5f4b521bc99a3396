"""What an evaluation knows of maps before it reads them: lines, whose rows are found in the tasks."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sess_ray.access import Access
from sess_ray.io.moved import Moved
from sess_ray.io.pieces import piece
from sess_ray.io.store import MAPS, Store
from sess_ray.pipeline.evaluate import parts
from sess_ray.pipeline.evaluate.judging import read_maps
from sess_ray.pipeline.evaluate.parts import select_maps

ROWS = 25  # of a file, in row groups of 10


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three files of maps: one says in its name how many it has."""
    root = tmp_path_factory.mktemp("run")
    store = Store(str(root / "run"))
    for file in range(3):
        ids = [f"{file}/{number:02}.jpg" for number in range(ROWS)]
        rows = [{"image_id": name, "uri": f"old/{name}", "target": 7, "height": 1, "width": 1} for name in ids]
        name = f"{piece(0, range(ROWS), ROWS, ROWS).stem if file == 2 else file}.parquet"
        (root / "run" / "maps").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, MAPS), root / "run" / "maps" / name, row_group_size=10)
    return store


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A manifest of the images whose numbers are even."""
    path = tmp_path_factory.mktemp("images") / "images.csv"
    ids = [f"{file}/{number:02}.jpg" for file in (2, 1, 0) for number in range(0, ROWS, 2)]
    path.write_text("\n".join(["uri,id", *(f"/new/{name},{name}" for name in ids)]))
    return str(path)


def listed(run, **settings):
    settings = {"limit": None, "moved": None, **settings}
    return select_maps({"sess": run}, {"sess": run.tables("maps")}, **settings)


def read(selection, run):
    found = []
    for block in selection.blocks:
        assert set(block["run"].to_pylist()) == {"sess"}
        given = {"pixels": False, "max_pixels": 1, "moved": selection.moved}
        for table in read_maps(block, Access(), {"sess": run.url}, **given):
            found += table.select(["image_id"]).to_pylist()
    return [row["image_id"] for row in found]


def numbers(file, found):
    return [int(name[2:4]) for name in found if name.startswith(f"{file}/")]


@pytest.mark.parametrize("part_rows", [4096, 8])
@pytest.mark.parametrize("most", [4096, 1])
def test_every_map_is_in_one_block(run, part_rows, most, monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", part_rows)
    monkeypatch.setattr(parts, "MOST_BLOCKS", most)
    selection = listed(run)
    assert selection.maps == 3 * ROWS
    sizes = [sum(block["rows"].to_pylist()) for block in selection.blocks]
    assert (
        sizes
        == {(4096, 4096): [25] * 3, (8, 4096): [8, 8, 8, 1] * 3, (4096, 1): [75], (8, 1): [8, 8, 8, 1] * 3}[
            part_rows, most
        ]
    )
    found = read(selection, run)
    assert len(found) == 3 * ROWS
    assert sorted(set(found)) == sorted(found)


def test_a_limit_counts_maps(run):
    selection = listed(run, limit=30)
    assert (selection.maps, [part.rows for part in selection.parts]) == (30, [25, 5])
    assert [len(numbers(file, read(selection, run))) for file in (0, 2, 1)] == [25, 5, 0]  # as files are sorted


def test_images_that_are_elsewhere_now_are_told_from_those_that_are_gone(run, images):
    selection = listed(run, moved=Moved(images))
    assert selection.maps == 3 * 13
    found = read(selection, run)
    assert [numbers(file, found) for file in range(3)] == [list(range(0, ROWS, 2))] * 3
    gone = list(selection.unplaced())
    assert len(gone) == 3 * 12
    assert set(gone) == {("sess", f"{file}/{number:02}.jpg", 7) for file in range(3) for number in range(1, ROWS, 2)}
    places = [
        (row["image_id"], row["uri"], row["number"])
        for _, _, table in selection.stream(["uri"])
        for row in table.to_pylist()
    ]
    assert places == [(name, f"/new/{name}", int(name[2:4])) for name in found]


def test_with_both_the_limit_counts_what_is_there(run, images):
    selection = listed(run, limit=15, moved=Moved(images))
    assert (selection.maps, [part.rows for part in selection.parts]) == (15, [25, 3])
    assert [numbers(file, read(selection, run)) for file in (0, 2, 1)] == [list(range(0, ROWS, 2)), [0, 2], []]
    assert len(list(selection.unplaced())) == 3 * 12  # what is gone is said of all
