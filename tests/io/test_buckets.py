"""Names of buckets, listed folder by folder at the same time: as they come one after the other."""

from __future__ import annotations

import itertools
import random
import threading
import time
from concurrent.futures import Future

import pytest

from sess_ray.io import buckets
from sess_ray.io.buckets import PAYS, Page, names_in


class Bucket:
    """A store that lists as S3's reference says, with few names on a page; it notes what is asked."""

    def __init__(self, names, size, *, inclusive=False, wait=0.0):
        self.names = sorted(names, key=str.encode)
        self.size, self.inclusive, self.wait = size, inclusive, wait
        self.asked, self.now, self.most = [], 0, 0
        self.lock = threading.Lock()

    def ask(self, prefix, by_folder, after, token):
        with self.lock:
            self.asked.append((prefix, by_folder, after, token))
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.wait)
        entries = []
        for name in self.names:
            cut = name.find("/", len(prefix)) if by_folder else -1
            entry = name if cut < 0 else name[: cut + 1]
            behind = name >= after if self.inclusive else name > after  # of a folder what is in it
            if self.inclusive or cut < 0 or entry > after:  # S3 leaves out folders that are before it as a name
                entries += [entry] if name.startswith(prefix) and behind and entry not in entries[-1:] else []
        entries = [entry for entry in entries if token is None or entry > token]
        page = entries[: self.size]
        with self.lock:
            self.now -= 1
        folders = [entry for entry in page if by_folder and entry.endswith("/") and entry != prefix]
        kept = [entry for entry in page if entry not in folders]
        return Page(kept, folders, page[-1] if len(entries) > self.size else None)


def tree(rng, depth=3):
    """Names of a bucket: files beside folders, folders in folders, markers, and names that sort oddly."""
    odd = ["a", "a.b", "a-b", "a+", "a0", "~", "~~", "é", "b c", "", "🜁"]
    names = set()
    for _ in range(rng.randrange(1, 120)):
        parts = [rng.choice(odd) for _ in range(rng.randrange(1, depth + 2))]
        names.add("/".join(["p", *parts]) + rng.choice(["", "", "/", str(rng.randrange(30))]))
    names.update(f"p/big/{rng.choice('0~é')}{number:03}.jpg" for number in range(rng.choice([0, 40])))
    names.update(f"p/{number:03}/1.jpg" for number in range(rng.choice([0, 40])))
    return {name for name in names if name.startswith("p/")}


@pytest.mark.parametrize("inclusive", [False, True], ids=["s3", "gcs"])
@pytest.mark.parametrize("seed", range(12))
def test_all_names_come_once_and_in_their_order_from_any_of_them_on(seed, inclusive):
    rng = random.Random(seed)
    bucket = Bucket({*tree(rng), "o/x", "p0", "pa/y"}, rng.choice([1, 2, 5, 30]), inclusive=inclusive)
    expected = [name for name in bucket.names if name.startswith("p/")]
    assert list(names_in(bucket.ask, "p/")) == expected
    for place in rng.sample(range(len(expected)), min(4, len(expected))):
        assert list(names_in(bucket.ask, "p/", expected[place])) == expected[place + 1 :]
    assert list(names_in(bucket.ask, "")) == bucket.names


class AtOnce:
    """A pool that has done what it is given."""

    def __init__(self, *_, **__):
        pass

    def submit(self, function, *arguments):
        done = Future()
        done.set_result(function(*arguments))
        return done

    def shutdown(self, **_):
        pass


def test_the_last_page_may_be_empty_and_there_before_it_is_its_turn(monkeypatch):
    monkeypatch.setattr(buckets, "ThreadPoolExecutor", AtOnce)
    pages = {
        ("p/a/", False, None): Page([], [], None),
        ("p/", True, None): Page([], ["p/a/"], "second"),
        ("p/", True, "second"): Page(["p/b"], [], "third"),
        ("p/", True, "third"): Page([], [], None),
    }
    found = names_in(lambda prefix, by_folder, _, token: pages[prefix, by_folder, token], "p/", "p/a/1")
    assert list(found) == ["p/b"]


def test_folders_are_listed_at_the_same_time():
    """Twenty folders of five pages: as many requests as pages, and those of several folders at once."""
    bucket = Bucket([f"{folder:02}/{file:03}" for folder in range(20) for file in range(50)], 10, wait=0.01)
    begin = time.perf_counter()
    assert list(names_in(bucket.ask, "")) == bucket.names
    assert time.perf_counter() - begin < 0.6 * len(bucket.asked) * bucket.wait
    assert bucket.most > 4
    assert len(bucket.asked) < 1.3 * 100


def test_small_folders_are_listed_together():
    """A request for each of them would cost more than it gains."""
    bucket = Bucket([f"{folder:03}/{file}" for folder in range(400) for file in range(2)], 100)
    assert list(names_in(bucket.ask, "")) == bucket.names
    assert PAYS < 100 / 2
    assert len(bucket.asked) == 8


def test_what_is_not_wanted_is_not_listed(monkeypatch):
    """So much is held before it is its turn, and no more is asked for; and nothing after the last that is wanted."""
    monkeypatch.setattr(buckets, "HELD", 100)
    bucket = Bucket([f"{folder:03}/{file:03}" for folder in range(200) for file in range(20)], 30)
    some = names_in(bucket.ask, "")
    for folder in range(10):
        time.sleep(0.02)
        assert list(itertools.islice(some, 20)) == bucket.names[20 * folder : 20 * folder + 20]
    some.close()
    time.sleep(0.05)
    assert len(bucket.asked) < 60


def test_a_page_that_is_not_there_is_no_end():
    bucket = Bucket([f"{folder}/{file:03}" for folder in range(5) for file in range(30)], 10)

    def ask(prefix, by_folder, after, token):
        if prefix == "3/" and token:
            raise PermissionError("no")
        return bucket.ask(prefix, by_folder, after, token)

    listed = names_in(ask, "")
    assert list(itertools.islice(listed, 3 * 30 + 10)) == bucket.names[: 3 * 30 + 10]
    with pytest.raises(PermissionError):
        next(listed)
