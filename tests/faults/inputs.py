"""Damaged inputs that have a structure: manifests, Parquet, tar shards and annotations.

`python -m tests.faults.inputs --count 500 --seed 7` reads so many of each kind, in processes that may die, and says
what became of them: refused in a line, or read, each image with pixels or with an error. Anything else is wrong.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import json
import multiprocessing
import queue
import random
import resource
import signal
import tarfile
import tempfile
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sess_ray import SessError
from sess_ray.access import Access
from sess_ray.io.annotation_formats import read_annotations
from sess_ray.io.inputs import list_images
from sess_ray.io.items import is_shard
from sess_ray.io.regions import region
from sess_ray.pipeline.evaluate.judging import PROBLEMS, problem
from sess_ray.pipeline.explain.stages import TASKS, read_and_decode
from sess_ray.pipeline.explain.targets import malformed

SECONDS = 30  # for one input
MEMORY = 16 * 2**30  # bytes of addresses: what is damaged must not ask for more
ODD = [
    *(None, True, 0, -1, 7, 7.0, 0.5, 2**63, 10**30, 1e308, float("nan"), float("inf")),
    *("", " ", "7", "a" * 300, "\0", "\n", "\ud83d", "\u202e", "a::b", "../..", "\\", "#", "1.png", "t.tar#1.png"),
    *([], [None], {}, {"a": {}}, [[]], [1, 2, 3, 4], [[1, 2, 3, 4, 5, 6]], {"size": [4, 6], "counts": [24]}),
]
CELLS = [
    *(["1.png"], [b"1.png"], [None], [1], [1.5], [True], [["a", "b"]], [[1, 2]], [{"bytes": b"", "path": "1.png"}]),
    *([datetime(2026, 1, 1, tzinfo=UTC)], [Decimal("1.5")], [{"bytes": None, "path": None}], [[]], [b"\xff"]),
]


# --- whole inputs ---


def picture(shade=90):
    content = io.BytesIO()
    Image.new("RGB", (40, 36), (shade, 90, 90)).save(content, "PNG")
    return content.getvalue()


def table_of_images(kind):
    rows = [{"uri": f"{number}.png", "id": f"i{number}", "label": "cat", "targets": "1;2"} for number in range(4)]
    if kind == "jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def packed(columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def bytes_of_images():
    images = [{"bytes": picture(shade), "path": f"{shade}.png"} for shade in range(3)]
    return packed({"image": images, "label": [1, 2, 3], "id": ["a", "b", "c"]})


def shard():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in (
            ("1.png", picture()),
            ("1.cls", b"3"),
            ("2.png", picture(9)),
            ("2.json", b'{"label": 3}'),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for kind, name in ((tarfile.LNKTYPE, "3.png"), (tarfile.SYMTYPE, "4.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "1.png"
            tar.addfile(info)
    return buffer.getvalue()


def coco():
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 36} for n in range(3)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 9, 2, 9, 8]]},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [36, 40], "counts": [0, 2, 1438]}},
            {"id": 3, "image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"id": 4, "image_id": 2, "category_id": 1, "segmentation": {"size": [36, 40], "counts": "02n\\1"}},
        ],
    }


def rows_of_objects():
    thing = {"label": "cat", "box": [0, 0, 9, 9], "segments": [[1, 2, 9, 2, 9, 8]]}
    return [{"image_id": f"{n}.png", "width": 40, "height": 36, "objects": [thing, thing]} for n in range(3)]


XML = b"""<?xml version="1.0" encoding="utf-8"?><annotation><filename>1.png</filename><size><width>40</width>
<height>36</height></size><object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>
<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"""


# --- what happens to them ---


def flipped(rng, content):
    mutated = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        mutated[rng.randrange(len(mutated))] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def cut(rng, content):
    return content[: rng.randrange(len(content))]


def spliced(rng, content):
    first, second = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:second] + content[first:]


def sprinkled(rng, content):
    odd = (b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b",", b"{", b"]", b"<", b"&", b"\\ud83d")
    for _ in range(rng.choice((1, 3))):
        place = rng.randrange(len(content))
        content = content[:place] + rng.choice(odd) + content[place:]
    return content


def encoded(rng, content):
    return content.decode().encode(rng.choice(("utf-16", "utf-8-sig", "utf-32", "utf-16-le", "cp037")))


BYTES = (flipped, cut, spliced, sprinkled)


def with_another_node(rng, document):
    """Change, remove or repeat something somewhere in a JSON document."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 2, 5))):
        holders, pending = [], [document]
        while pending:
            node = pending.pop()
            if isinstance(node, dict | list) and node:
                holders.append(node)
                pending += node.values() if isinstance(node, dict) else node
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        change = rng.choice(("set", "set", "set", "remove", "repeat"))
        if change == "set":
            holder[key] = copy.deepcopy(rng.choice(ODD))  # itself it would be changed next, and might hold itself
        elif change == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[f"{key} "] = holder.pop(key)
    return document


def with_another_header(rng, content):
    """Change bytes in a header of a tar, and make its sum right again: else it is only ever a broken header."""
    mutated = bytearray(content)
    places = [at for at in range(0, len(mutated), 512) if mutated[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(places)
    for _ in range(rng.choice((1, 2, 6))):
        mutated[at + rng.choice((rng.randrange(100), rng.randrange(124, 136), 156, rng.randrange(157, 257)))] = (
            rng.choice((rng.randrange(256), *b"0125678gxLKS"))
        )
    mutated[at + 148 : at + 156] = b" " * 8
    mutated[at + 148 : at + 156] = b"%06o\0 " % sum(mutated[at : at + 512])
    return bytes(mutated)


def with_other_columns(rng):
    """Return Parquet whose columns are of any types."""
    names = ("uri", "path", "image", "bytes", "id", "image_id", "label", "targets", "other", "Label", "x0", "objects")
    return packed({name: rng.choice(CELLS) for name in rng.sample(names, rng.randrange(1, 5))})


def as_lines(rows):
    rows = rows if isinstance(rows, list) else [rows]
    return "\n".join(map(json.dumps, rows)).encode()


def mutated(rng, kind):
    """Return the name and the bytes of a damaged input of a kind."""
    mutate = rng.choice(BYTES)
    if kind == "manifests":
        suffix = rng.choice(("csv", "tsv", "jsonl"))
        content = table_of_images(suffix)
        if suffix == "jsonl" and rng.random() < 0.5:
            return "m.jsonl", as_lines(with_another_node(rng, [json.loads(line) for line in content.splitlines()]))
        return f"m.{suffix}", rng.choice((*BYTES, encoded))(rng, content)
    if kind == "Parquet":
        whole = rng.choice((bytes_of_images, lambda: packed({"uri": ["1.png", "2.png"], "label": ["cat", None]})))
        return "p.parquet", with_other_columns(rng) if rng.random() < 0.4 else mutate(rng, whole())
    if kind == "tar shards":
        return "t.tar", rng.choice((*BYTES, with_another_header, with_another_header))(rng, shard())
    draw = rng.random()
    if draw < 0.5:
        return "c.json", json.dumps(with_another_node(rng, coco())).encode()
    if draw < 0.65:
        return "c.json", rng.choice((*BYTES, encoded))(rng, json.dumps(coco()).encode())
    if draw < 0.75:
        return "r.jsonl", as_lines(with_another_node(rng, rows_of_objects()))
    if draw < 0.85:
        return "r.parquet", mutate(
            rng, packed({name: [row[name] for row in rows_of_objects()] for name in ("image_id", "objects")})
        )
    return "a.xml", rng.choice((*BYTES, encoded))(rng, XML)


KINDS = ("manifests", "Parquet", "tar shards", "annotations")


# --- what becomes of them ---


def outcome(path, kind):
    """Read an input as the jobs do, and say what became of it; raise where that is wrong."""
    try:
        return _annotated(path) if kind == "annotations" else _read(path)
    except SessError as error:
        words = str(error)
    assert words, "a refusal without words"
    assert "\n" not in words, f"a refusal of several lines: {words}"
    words.encode()
    return "refused"


def _read(path):
    items = list_images(str(path))
    tasks = pa.Table.from_pylist([{**row, "targets": None, "top": "top1"} for row in items.to_pylist()], TASKS)
    rows = [row for table in read_and_decode(tasks, Access(), 10**6) for row in table.to_pylist()]
    found, given = Counter(row["image_id"] for row in rows), items["image_id"].to_pylist()
    for name, uri in zip(given, items["uri"].to_pylist(), strict=True):
        below = [other for other in found if other == name or (is_shard(uri) and other.startswith(f"{name}/"))]
        assert below, f"{name!r} is lost"
    assert max(found.values()) == 1, f"twice: {found.most_common(1)}"
    for row in rows:
        assert (row["pixels"] is None) == bool(row["error"]), row
        assert "\n" not in (row["error"] or ""), row["error"]
    return "with errors" if any(row["error"] for row in rows) else "read"


def _annotated(path):
    found = read_annotations(str(path))
    pa.Table.from_pylist([problem("", place, None, "annotation", detail) for place, detail in found.problems], PROBLEMS)
    for line in malformed(found):
        line.encode()
    for image_id, annotation in found.by_id.items():
        assert found.find(image_id) is not None, f"{image_id!r} is not found"
        for kind in ("boxes", "segments"):
            with suppress(SessError):
                region(annotation.objects, 36, 40, kind)
    return "with errors" if found.problems else "read"


def read_some(folder, kind, count, seed, done=None):
    """Read damaged inputs of a kind; return how many ended how, and what was wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture())
    counts, wrong = Counter(), []
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("it hangs")))
    for number in range(count):
        if done is not None:
            done.value = number
        name, content = mutated(random.Random(f"{seed}-{kind}-{number}"), kind)
        (folder / name).write_bytes(content)
        signal.alarm(SECONDS)
        try:
            counts[outcome(folder / name, kind)] += 1
        except Exception as error:
            wrong.append(f"{kind} {number}: {type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
            (folder / name).unlink()
    return counts, wrong


def _apart(folder, kind, count, seed, done, answers):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers.put(read_some(folder, kind, count, seed, done))


def answered(process, answers, done, seconds=2 * SECONDS):
    """Return what a process answers, since only then it ends; None where it ends without, or one input hangs."""
    number, end = done.value, time.monotonic() + seconds
    while time.monotonic() < end:
        alive = process.is_alive()
        with suppress(queue.Empty):
            return answers.get(timeout=0.5)
        if not alive:
            return None
        if done.value != number or number < 0:  # it may take long to begin
            number, end = done.value, time.monotonic() + seconds
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            done, answers = context.Value("i", -1), context.Queue()
            process = context.Process(target=_apart, args=(Path(folder), kind, given.count, given.seed, done, answers))
            process.start()
            found = answered(process, answers, done)
            if found is None:
                why = "hangs" if process.is_alive() else f"ends the process: {process.exitcode}"
                print(f"{kind}: number {done.value} {why}", flush=True)
            else:
                counts, wrong = found
                print(f"{kind}: {dict(sorted(counts.items()))}, {len(wrong)} wrong", *wrong, sep="\n", flush=True)
            process.kill()
            process.join()


if __name__ == "__main__":
    main()
