"""Two runs on one output: the second waits, takes over, or says who works there."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from sess_ray import SessError
from sess_ray.errors import RunError
from sess_ray.io import lease as module
from sess_ray.io.lease import Lease, create
from sess_ray.io.store import Store

BEAT = 0.04


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.01)


def files(store):
    return [name for name in module._files(store) if name.startswith(".lease")]


def of_another_machine(store, number=1, beats=0):
    with Lease(beat=BEAT) as lease:
        owner = vars(lease._owner) | {"run": "other", "who": "she@there, process 7", "machine": "there", "beats": beats}
    store.write(module._name(number), json.dumps(owner).encode())


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def stopped(store, error):
    with Lease(beat=BEAT) as lease:
        assert not lease.take(store)  # nobody was there before
        assert files(store) == [".lease-000001.json"]
        raise error


def test_it_is_given_back_whatever_ends_the_run(store):
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            stopped(store, error)
        assert files(store) == []


def test_who_works_there_is_said(store):
    with Lease(beat=BEAT) as first, Lease(beat=BEAT) as second:
        first.take(store)
        with pytest.raises(
            SessError, match=r"process \d+ has worked on output .* since .*\(--wait\), stop it, or choose"
        ):
            second.take(store)
        second.release()
        assert files(store) == [".lease-000001.json"]
        first.check()


def test_who_shall_wait_goes_on_when_the_other_ends(store, caplog):
    with Lease(beat=BEAT) as first, Lease(beat=BEAT, wait=True) as second:
        first.take(store)
        taken = []
        waiting = threading.Thread(target=lambda: taken.append(second.take(store)))
        with caplog.at_level(logging.WARNING, "sess_ray"):
            waiting.start()
            until(lambda: "waits for" in caplog.text)
            assert not taken
            first.release()
            waiting.join(20)
        assert taken == [True]  # what is left has to be looked at again
        assert len(files(store)) == 1


@pytest.mark.slow
def test_the_place_of_a_process_that_died_here_is_taken_at_once(store):
    """Killed, it cannot give it back."""
    program = (
        "import sys, time; from sess_ray.io.lease import Lease; from sess_ray.io.store import Store\n"
        "Lease(beat=3600).take(Store(sys.argv[1])); print('taken', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, store.url], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with Lease() as alive, pytest.raises(SessError, match=f"process {process.pid} has worked on output"):
            alive.take(store)
        process.kill()
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        begin = time.monotonic()
        with Lease() as lease:  # also while it is a zombie, whose parent has not heard of it
            assert not lease.take(store)
            assert time.monotonic() - begin < 5
            assert files(store) == [".lease-000002.json"]


def test_a_process_of_the_same_number_is_another(store):
    with Lease(beat=3600) as first:
        first.take(store)
        path = Path(store.path(files(store)[0]))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"born": 1.0}))
        with Lease() as second:
            assert not second.take(store)


def test_a_machine_that_is_silent_for_some_beats_is_dead(store):
    of_another_machine(store)
    begin = time.monotonic()
    with Lease(beat=BEAT) as lease:
        assert lease.take(store)
    assert time.monotonic() - begin > module.SILENT * BEAT


def test_a_machine_that_renews_its_file_lives(store):
    of_another_machine(store)
    over = threading.Event()

    def renew():
        beats = 0
        while not over.wait(BEAT / 2):
            beats += 1
            of_another_machine(store, beats=beats)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with Lease(beat=BEAT) as lease, pytest.raises(SessError, match="she@there, process 7 has worked"):
            lease.take(store)
    finally:
        over.set()
        renewing.join()


def test_of_many_that_take_over_one_does(store):
    of_another_machine(store)
    leases = [Lease(beat=BEAT) for _ in range(6)]
    results = []

    def take(lease):
        try:
            results.append(lease.take(store))
        except SessError as error:
            results.append(error)

    threads = [threading.Thread(target=take, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(files(store)) == 1
    assert results.count(True) == 1
    assert len(results) == 6
    for lease in leases:
        lease.release()


def test_who_was_thought_dead_stops(store):
    with Lease(beat=BEAT) as first:
        first.take(store)
        first.check()
        of_another_machine(store, number=2)
        until(lambda: first._lost)
        with pytest.raises(RunError, match=r"she@there, process 7 has taken over output .*: this run stops"):
            first.check()
    assert ".lease-000002.json" in files(store)  # it is not ours


def test_a_store_that_is_down_for_a_while_costs_nothing(store, monkeypatch):
    with Lease(beat=BEAT) as lease:
        lease.take(store)
        with monkeypatch.context() as down:
            down.setattr(module, "_files", lambda _: 1 / 0)
            time.sleep(3 * BEAT)
        path = Path(store.path(files(store)[0]))
        until(lambda: json.loads(path.read_text())["beats"] > 0)
        lease.check()


def test_files_that_are_there_are_not_created(store):
    for one in (store, Store("memory://created")):
        assert create(one, "a.json", b'{"a": 1}')
        assert not create(one, "a.json", b'{"a": 2}')
        assert one.read_json("a.json") == {"a": 1}
