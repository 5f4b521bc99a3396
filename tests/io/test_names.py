"""Class names as people have them."""

from __future__ import annotations

import pytest

from sess_ray import SessError
from sess_ray.io.names import read_class_names

LINES = {
    "a name a line": b"ant\nbee\ncat\n",
    "without an end": b"ant\nbee\ncat",
    "empty lines at the end": b"ant\nbee\ncat\n\n \n",
    "of Windows": b"\xef\xbb\xbfant\r\nbee\r\ncat\r\n",
    "of an old Mac": b"ant\rbee\rcat\r",
    "an index and a name": b"0\tant\n1\tbee\n2\tcat\n",
    "in any order": b"\xef\xbb\xbf2\tcat\r\n0\tant\r\n1\tbee\r\n",
    "an id and a name": b"n1\tant\nn2\tbee\nn3\tcat\n",
    "three columns": b"0\tn1\tant\n1\tn2\tbee\n2\tn3\tcat\n",
    "three columns in any order": b"2\tn3\tcat\n0\tn1\tant\n1\tn2\tbee\n",
    "three columns from 1 on": b"1\tn1\tant\n2\tn2\tbee\n3\tn3\tcat\n",
}


@pytest.fixture
def written(tmp_path):
    def write(content):
        (tmp_path / "names.txt").write_bytes(content)
        return str(tmp_path / "names.txt")

    return write


@pytest.mark.parametrize("form", LINES)
def test_names_in_order(form, written):
    assert read_class_names(written(LINES[form])) == ["ant", "bee", "cat"]


def test_commas_and_odd_letters_are_part_of_a_name(written):
    names = ["tench, Tinca tinca", "Acme, Inc.", "form\x0cfeed", "line\u2028separator", "10"]
    assert read_class_names(written("\n".join(names).encode())) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ant\n\ncat\n", "line 2 is empty, and lines count"),
        (b"1\tant\n2\tbee\n", "2 lines, and none has the index 0: number them from 0 on"),
        (b"0\tant\n0\tbee\n", "2 lines, and none has the index 1"),
        (b"\xff\xfea\x00", "are no text in UTF-8: write one a line"),
        (b"", "line 1 is empty"),
        (b"2\tcat\n0\t\n1\tbee\n", "line 2 is empty, and lines count"),
        (b"ant\t0\nbee\t1\n", "the last column, where names are, has numbers alone"),
        (b"2\tcat\nant\n1\tbee\n", "line 2 has 1 columns between tabs, and line 1 has 2: write an index, a tab"),
    ],
)
def test_what_cannot_be_names(content, message, written):
    with pytest.raises(SessError, match=message):
        read_class_names(written(content))
