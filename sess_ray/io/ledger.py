"""Which images an output holds; and that it holds each map once, and none of an image that has an error.

What a block of images gives is written in one piece, under a name made of the images' ids: computed again, it replaces
itself. Twice in an output is an image only if a block was cut differently the second time (a read that failed at first
gives smaller blocks), or if a machine that seemed lost went on writing. Both are seen here, and put right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sess_ray.errors import SessError
from sess_ray.io.pieces import by_folder, newest, piece_of
from sess_ray.io.store import DICTIONARY, ERRORS, MAPS, Store

KEYS = {
    "maps": pa.schema([MAPS.field("image_id"), MAPS.field("target")]),
    "errors": pa.schema([ERRORS.field("image_id")]),
}


@dataclass(frozen=True)
class Ledger:
    """What an output holds.

    Attributes
    ----------
    maps : pa.Table
        image_id, target and file of each map.
    errors : pa.Table
        image_id and file of each error.
    """

    maps: pa.Table
    errors: pa.Table

    @property
    def finished(self) -> pa.Array:
        """The ids of all images that have maps or an error."""
        both = pa.chunked_array([*self.maps["image_id"].chunks, *self.errors["image_id"].chunks], pa.string())
        return both.unique()

    @property
    def images(self) -> int:
        """Number of images that have maps."""
        return pc.count_distinct(self.maps["image_id"]).as_py()


def read_ledger(store: Store, *, repair: bool = True) -> Ledger:
    """Return what an output holds; with `repair`, after whatever it holds twice has been removed."""
    every = [name for folder in KEYS for name in store.files(folder, ".parquet")]
    files, outdated = by_weight(every)
    ledger = read_files(store, [*files, *outdated] if repair else files)
    return read_ledger(store) if repair and put_right(store, outdated, ledger) else ledger


def read_files(store: Store, files: Sequence[str]) -> Ledger:
    """Return what some files of an output hold."""
    own = by_folder(files)
    return Ledger(*(_read(store, folder, own.get(folder, [])) for folder in KEYS))


def by_weight(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return files in the order in which they keep what several hold; and those that a joined one stands for."""
    count = {name for own in by_folder(files).values() for name in newest(own)}

    def weight(name: str) -> tuple[int, str]:
        one = piece_of(name)
        return (-one.rows if one else 0), name  # what is removed of a large file is written again with all the rest

    return sorted(count, key=weight), sorted(set(files) - count, key=weight)


def put_right(
    store: Store, outdated: Sequence[str], ledger: Ledger, stem: Callable[[str, pa.Table], str] | None = None
) -> bool:
    """Remove what an output holds twice, and files that a joined one stands for; return whether there was any.

    A run that was killed while it joined files leaves them. Should one hold rows that no other has, since its writer
    was late, then these are written again.

    Parameters
    ----------
    store : Store
    outdated : sequence of str
        The files that a joined one stands for.
    ledger : Ledger
        What all files hold; of these, last.
    stem : callable, optional
        As for `remove_surplus`.
    """
    removed = remove_surplus(store, ledger, stem)
    for name in outdated:
        if store.is_used([name]):
            _written(store, name.partition("/")[0], store.read_table(name), stem)
            store.remove(name)
    return bool(removed or outdated)


def _written(store: Store, folder: str, table: pa.Table, stem: Callable[[str, pa.Table], str] | None) -> str:
    return store.replace_table(folder, stem(folder, table), table) if stem else store.write_table(folder, table)


def _read(store: Store, folder: str, names: list[str]) -> pa.Table:
    """Return the keys of all rows of files of a folder, with the files that they are in."""
    tables = []
    for name, table in zip(names, store.read_tables(names, KEYS[folder].names), strict=True):
        if not table.schema.equals(KEYS[folder]):
            raise SessError(f"{store.path(name)} holds no rows of a run: remove it")
        file = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int32()), pa.array([name]))
        tables.append(table.append_column("file", file))
    empty = KEYS[folder].append(pa.field("file", DICTIONARY)).empty_table()
    return pa.concat_tables([empty, *tables]).unify_dictionaries()


def remove_surplus(store: Store, ledger: Ledger, stem: Callable[[str, pa.Table], str] | None = None) -> int:
    """Keep of each map and each error the one in the first file, and of an image with maps no error.

    Parameters
    ----------
    store : Store
    ledger : Ledger
    stem : callable, optional
        Names a file that is written again: its folder and rows to the name, without the extension. Without it, it is
        named by its rows.

    Returns
    -------
    int
        Number of rows that were removed.
    """
    maps, errors = ledger.maps, ledger.errors
    explained = pc.is_in(errors["image_id"], maps["image_id"].unique())
    others = _surplus(errors.filter(pc.invert(explained)), KEYS["errors"].names)
    removed = 0
    for folder, table, surplus in (
        ("maps", maps, _surplus(maps, KEYS["maps"].names)),
        ("errors", errors, pa.concat_tables([errors.filter(explained), others])),
    ):
        there, gone = (Counter(some["file"].cast(pa.string()).to_pylist()) for some in (table, surplus))
        # First those of which nothing stays: what is written again of another may be called as they are.
        for file in sorted(gone, key=lambda name: gone[name] < there[name]):
            _without(store, folder, file, surplus.filter(pc.equal(surplus["file"].cast(pa.string()), file)), stem)
        removed += surplus.num_rows
    return removed


def _surplus(table: pa.Table, keys: list[str]) -> pa.Table:
    """Return the rows whose keys stand in an earlier row."""
    if not table.num_rows:
        return table
    numbered = table.append_column("number", pa.array(range(table.num_rows), pa.int64()))
    first = numbered.group_by(keys).aggregate([("number", "min")])["number_min"]
    if len(first) == table.num_rows:
        return table.slice(0, 0)
    return table.filter(pc.invert(pc.is_in(numbered["number"], first)))


def _without(
    store: Store, folder: str, file: str, surplus: pa.Table, stem: Callable[[str, pa.Table], str] | None
) -> None:
    """Write a file again without some rows: first the new one, then the old one goes; nothing is ever missing."""
    keys = KEYS[folder].names
    gone = Counter(tuple(row[key] for key in keys) for row in surplus.to_pylist())
    table = store.read_table(file)
    kept = []
    for number, row in reversed(list(enumerate(table.select(keys).to_pylist()))):  # of rows alike the first stays
        key = tuple(row.values())
        gone[key] -= 1
        if gone[key] < 0:
            kept.append(number)
    if kept and _written(store, folder, table.take(kept[::-1]), stem) == file:
        return
    store.remove(file)
