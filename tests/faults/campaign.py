"""A kill campaign: whatever dies in mid-run, an output ends with the rows of a quiet run, each of them once.

python -m tests.faults.campaign --runs 50 --seed 0
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.faults.bench import CUT, Bench
from tests.faults.jobs import MISSED, Held, Job, Wrong

ACTOR = "ray::MapWorker(MapBatches(ExplainActor))"
COMPACTION = "ray::compact_span"
COMPACTION_SECONDS = 0.5  # that one takes, about, on the disk of `slow`
STOP_SECONDS = 10  # after Ctrl-C
STOPPED = "stopped: what is written stays; the same command goes on"


def kill_actor(job: Job, _: Bench) -> None:
    job.kill_one(ACTOR)
    job.expect(0)


def kill_task(job: Job, _: Bench) -> None:
    job.kill_one("ray::MapBatches(read_and_decode)", "ray::MapBatches(write)")
    job.expect(0)


def kill_driver(job: Job, _: Bench) -> None:
    if job.hit():
        job.driver.kill()
        job.expect(-signal.SIGKILL)
        job.start()
    job.expect(0)


def interrupt(job: Job, _: Bench) -> None:
    if job.hit():
        begin = time.monotonic()
        job.driver.send_signal(signal.SIGINT)
        job.expect(128 + signal.SIGINT)
        if (seconds := time.monotonic() - begin) > STOP_SECONDS:
            job.complaints.append(f"Ctrl-C takes {seconds:.1f} s")
        if (words := job.last_words()) != STOPPED:
            job.complaints.append(f"Ctrl-C says {words}")
        job.start()
    job.expect(0)


def kill_actor_and_interrupt(job: Job, bench: Bench) -> None:
    job.kill_one(ACTOR)
    interrupt(job, bench)


def lose_node(job: Job, bench: Bench) -> None:
    if job.hit():
        bench.nodes.lose(job.rng)
    try:
        job.expect(0)
    finally:
        bench.nodes.fill()


def kill_store(job: Job, bench: Bench) -> None:
    if job.hit():
        bench.server.kill()
        time.sleep(job.rng.uniform(1, 6))
        bench.server.start()
    job.expect(0)


def kill_compaction(job: Job, _: Bench) -> None:
    job.kill_one(COMPACTION, seconds=COMPACTION_SECONDS)
    job.expect(0)


def power_off_in_compaction(job: Job, _: Bench) -> None:
    busy = job.wait_for(COMPACTION, seconds=COMPACTION_SECONDS)
    if busy:
        job.power_off(busy)
        job.driver.wait()
        job.note()
        job.start()
    job.expect(0)


def retry_and_kill(job: Job, _: Bench) -> None:
    """Let a run end, explain its errors again, and kill that driver: spans that are joined are gone on with."""
    job.expect(0)
    job.start("--retry-errors")
    if job.wait_for(COMPACTION, seconds=COMPACTION_SECONDS) and job.hit():
        job.driver.kill()
        job.expect(-signal.SIGKILL)
        job.start()
    job.expect(0)


def lose_node_in_compaction(job: Job, bench: Bench) -> None:
    job.wait_for(COMPACTION, seconds=COMPACTION_SECONDS)
    lose_node(job, bench)


def kill_first(job: Job, _: Bench) -> None:
    """Kill the driver for whose output another run waits; its workers live on a while."""
    if job.hit():
        job.driver.kill()
        job.expect(-signal.SIGKILL)
    job.second().expect(0)


def kill_first_in_compaction(job: Job, bench: Bench) -> None:
    job.wait_for(COMPACTION, seconds=COMPACTION_SECONDS)
    kill_first(job, bench)


def let_both_live(job: Job, _: Bench) -> None:
    job.hit()
    job.expect(0)
    job.second().expect(0)


FAULTS: dict[str, Callable[[Job, Bench], None]] = {
    "actor": kill_actor,
    "task": kill_task,
    "driver": kill_driver,
    "interrupt": interrupt,
    "twice": kill_actor_and_interrupt,
    "node": lose_node,
    "store": kill_store,
}
USUAL = list(FAULTS)
# Done to inputs that are cut into spans: a manifest, and tar shards.
OF_SPANS: dict[str, Callable[[Job, Bench], None]] = {
    "actor": kill_actor,
    "driver": kill_driver,
    "join": kill_compaction,
    "power": power_off_in_compaction,
    "retry": retry_and_kill,
    "two": kill_first,
    "two-join": kill_first_in_compaction,
    "two-live": let_both_live,
}
FAULTS |= {f"{kind}-{name}": fault for kind in CUT for name, fault in OF_SPANS.items()}
WHERE: dict[str, dict[str, Callable[[Job, Bench], None]]] = {
    "disk": {},
    "store": {"store": kill_store},
    "nodes": {"node": lose_node, "node-join": lose_node_in_compaction},
}
FAULTS |= {f"{kind}-{name}": fault for kind in CUT for more in WHERE.values() for name, fault in more.items()}


@dataclass(frozen=True)
class Row:
    """A run of the campaign, as it is printed."""

    run: int
    fault: str
    moment: str
    attempts: int
    rows: int
    lost: int
    doubled: int
    different: int
    orphans: int
    seconds: float
    wrong: str

    @property
    def is_wrong(self) -> bool:
        return bool(self.wrong or self.lost or self.doubled or self.different or self.orphans)


def run(bench: Bench, number: int, fault: str, seed: int) -> Row:
    """Run a job, do a fault to it at a random moment, and compare what it leaves with what it should."""
    rng = random.Random(f"{seed} {number} {fault}")
    job = bench.job(f"{number:03}-{fault}", fault, rng)
    begin, found = time.monotonic(), dict.fromkeys(("rows", "lost", "doubled", "different", "orphans"), 0)
    try:
        job.start()
        if "-two" in fault:
            job.reach(0.0)
            job.second().start("--wait")
        job.reach(max(0.0, rng.uniform(-0.15, 0.9)))
        FAULTS[fault](job, bench)
        found = compared(job, job.output.held(), bench.clean_for(fault), joined="-" in fault)
    except Wrong as wrong:
        job.complaints.append(f"{wrong}: {job.last_words()}")
    finally:
        seconds = time.monotonic() - begin
        job.leave()
    return Row(number, fault, job.moment, job.starts, **found, seconds=round(seconds), wrong="; ".join(job.complaints))


def compared(job: Job, held: Held, clean: Held, *, joined: bool = False) -> dict[str, int]:
    """Count what an output has too little, too much or otherwise than that of a quiet run."""
    strange = [*(held.maps.keys() - clean.maps.keys()), *(held.errors - clean.errors)]
    if strange:
        job.complaints.append(f"not in the quiet run: {strange[:3]}")
    if held.counts != clean.counts:
        job.complaints.append(f"run.json says {held.counts}")
    if joined and held.files != clean.files:
        job.complaints.append(f"{held.files} files, not {clean.files}")
    both = held.maps.keys() & clean.maps.keys()
    apart = [levels(held.maps[key]) - levels(clean.maps[key]) for key in both if held.maps[key] != clean.maps[key]]
    if apart:
        job.complaints.append(f"levels differ by up to {max(abs(found).max() for found in apart)} of 255")
    return {
        "rows": held.rows,
        "lost": len(clean.maps.keys() - held.maps.keys()) + len(clean.errors - held.errors),
        "doubled": held.doubled,
        "different": len(apart),
        "orphans": held.orphans,
    }


def levels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), np.int16)


def line(cells: Sequence[object]) -> str:
    widths = (3, 14, 60, 8, 4, 4, 7, 9, 7, 7, 0)
    return "  ".join(str(cell).rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def summary(rows: Sequence[Row]) -> str:
    """Return a table of the faults: how often each hit a run, and what went wrong."""
    counted = ("lost", "doubled", "different", "orphans")
    table = [("fault", "runs", "hit", "wrong", *counted)]
    for fault in dict.fromkeys(row.fault for row in rows):
        own = [row for row in rows if row.fault == fault]
        hit, wrong = sum(row.moment != MISSED for row in own), sum(row.is_wrong for row in own)
        table.append((fault, len(own), hit, wrong, *(sum(getattr(row, name) for row in own) for name in counted)))
    return "\n".join("  ".join(f"{cell:>14}" for cell in cells) for cells in table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    told = "which, in this order (default: those of a small input); spans, tars: all that are done to such an input"
    parser.add_argument("--faults", default=",".join(USUAL), help=told)
    told = (
        "where inputs of spans are: on the disk, in an object store, or explained by two nodes (default: %(default)s)"
    )
    parser.add_argument("--where", choices=WHERE, default="disk", help=told)
    arguments = parser.parse_args()
    faults = arguments.faults.split(",")
    if arguments.faults in CUT:
        faults = [f"{arguments.faults}-{name}" for name in (*WHERE[arguments.where], *OF_SPANS)]
    folder = Path(tempfile.mkdtemp(prefix="kill"))  # short: the path of a socket has 107 characters at most
    rows: list[Row] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave nothing running
    with closing(Bench(folder, where=arguments.where)) as bench:
        clean = bench.clean_for(faults[0])
        print(f"a quiet run: {clean.rows} rows in {clean.files} files; logs in {folder}")
        print(line(list(Row.__dataclass_fields__)), flush=True)
        for number in range(arguments.runs):
            rows.append(run(bench, number, faults[number % len(faults)], arguments.seed))
            print(line(list(vars(rows[-1]).values())), flush=True)
    print(f"\n{summary(rows)}")
    if any(row.is_wrong for row in rows):
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
