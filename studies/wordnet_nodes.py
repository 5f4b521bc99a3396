"""Make sess_ray/models/wordnet.tsv: the nodes of WordNet above ImageNet's classes, and which classes each has.

ImageNet's ids are offsets in WordNet 3.0's noun database; its `data.noun` is in Debian's package wordnet-base.
"""

from __future__ import annotations

import sys
from pathlib import Path

from timm.data import ImageNetInfo

TABLE = Path(__file__).parents[1] / "sess_ray" / "models" / "wordnet.tsv"
LICENCE = 29  # lines at the head of data.noun


def read(database: Path) -> tuple[list[str], dict[str, list[str]], dict[str, list[str]]]:
    """Return the licence, and of each noun its words and what it is a kind of."""
    lines = database.read_text().splitlines()
    words: dict[str, list[str]] = {}
    kinds: dict[str, list[str]] = {}
    for line in lines[LICENCE:]:
        fields = line.partition(" | ")[0].split()
        count = int(fields[3], 16)
        words[fields[0]] = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        pointers = fields[5 + 2 * count :]
        kinds[fields[0]] = [pointers[at + 1] for at in range(0, len(pointers), 4) if pointers[at] in ("@", "@i")]
    return [line[4:].rstrip() for line in lines[:LICENCE]], words, kinds


def above(noun: str, kinds: dict[str, list[str]]) -> set[str]:
    """Return a noun and all that it is a kind of."""
    return {noun}.union(*(above(kind, kinds) for kind in kinds[noun]))


def ranges(classes: list[int]) -> str:
    """Return ascending numbers as ranges.

    >>> ranges([1, 2, 3, 5])
    '1-3+5'
    """
    starts = [number for number in classes if number - 1 not in classes]
    ends = [number for number in classes if number + 1 not in classes]
    return "+".join(f"{a}-{b}" if a != b else f"{a}" for a, b in zip(starts, ends, strict=True))


def main(database: Path) -> None:
    """Write the table."""
    licence, words, kinds = read(database)
    classes: dict[str, list[int]] = {}
    labels = ImageNetInfo("imagenet-1k").label_names()
    for number, wnid in enumerate(labels):
        for noun in above(wnid[1:], kinds):
            classes.setdefault(noun, []).append(number)
    head = [
        "Nodes of WordNet 3.0 with several of ImageNet's classes, made of it by studies/wordnet_nodes.py.",
        *licence,
    ]
    rows = [
        f"n{noun}\t{', '.join(words[noun])}\t{ranges(own)}"
        for noun, own in sorted(classes.items())
        if 1 < len(own) < len(labels)
    ]
    TABLE.write_text("\n".join([*(f"# {line}".rstrip() for line in head), *rows]) + "\n")
    print(f"{len(rows)} nodes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
