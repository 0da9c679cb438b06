"""Changes written into a file's text: right, and no line more than needed."""

import copy
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builders import DEFAULT_ENVOY_FILE
from document_places import places_in
from lodestar_extproc.check import Patch
from lodestar_extproc.check.mending.mended import CannotMendError, mended
from lodestar_extproc.config.yaml_tree import read_yaml

FILES = sorted(DEFAULT_ENVOY_FILE.parent.rglob("*.yaml"))
VALUES = (
    "0s",
    5,
    True,
    {"a": 1},
    {"a": {"b": ["c", "d"]}},
    [{"x": 1, "y": {"z": 2}}, "s"],
    [],
    {},
    "x: y #",
)


def at(value, path):
    for key in path:
        value = value[key]
    return value


def changed(text: str, path: tuple, value: object = None, *, inserts: bool = False) -> str:
    return mended(text, (Patch("x.yaml", path, value, inserts),))


TREES = {path: read_yaml(path.read_text()) for path in FILES}


@settings(max_examples=20)
@given(data=st.data(), file=st.sampled_from(FILES), value=st.sampled_from(VALUES))
def test_any_change_at_any_place_is_what_was_meant_and_no_comment_is_lost(data, file, value):
    path = data.draw(st.sampled_from([*places_in(TREES[file])]))
    kind = data.draw(st.sampled_from(["set", "remove", "insert"]))
    parent, last = at(TREES[file], path[:-1]), path[-1]
    assume(kind != "insert" or isinstance(last, int))
    # A list right in a list is written by nobody, and left to its writer.
    assume(not (isinstance(last, int) and isinstance(value, list)))
    text = file.read_text()

    after = changed(text, path, None if kind == "remove" else value, inserts=kind == "insert")

    expected = copy.deepcopy(parent)
    if kind == "remove":
        del expected[last]
    elif kind == "insert":
        expected.insert(last, value)
    else:
        expected[last] = value
    assert at(read_yaml(after), path[:-1]) == expected
    if kind == "insert":
        assert set(text.splitlines()) - set(after.splitlines()) <= {
            line for line in text.splitlines() if "[" in line or "{" in line
        }


@pytest.mark.parametrize(
    ("before", "path", "value", "after"),
    [
        ("a: 1  # why\nb: 2\n", ("a",), 5, "a: 5  # why\nb: 2\n"),
        ("a: {b: 1}  # why\n", ("a", "c"), [1], "a: {b: 1, c: [1]}  # why\n"),
        (
            "a:\n  b: 1  # why\n\n# c is\nc: 2\n",
            ("a", "d"),
            3,
            "a:\n  b: 1  # why\n  d: 3\n\n# c is\nc: 2\n",
        ),
        ("a:\n- b: 1\n- c: 2\n", ("a", 0), None, "a:\n- c: 2\n"),
        ("a:\n  - b: 1\n", ("d",), [{"c": 2}], "a:\n  - b: 1\nd:\n  - c: 2\n"),
        ("a: {}\n", ("a", "b"), {"c": 1}, "a: {b: {c: 1}}\n"),
        ("a:\nb: 1\n", ("a",), {"c": 1}, "a:\n  c: 1\nb: 1\n"),
        ("a: |\n  text\n\nb: 1\n", ("c",), 1, "a: |\n  text\n\nb: 1\nc: 1\n"),
        ("a: 'x'", ("b",), 1, "a: 'x'\nb: 1"),
        ("{a: 1, b: [x, y]}\n", ("c",), {"d": 2}, "{a: 1, b: [x, y], c: {d: 2}}\n"),
        ('{\n  "a": 1\n}\n', ("b",), "x", '{\n  "a": 1,\n  "b": "x"\n}\n'),
    ],
)
def test_a_change_is_written_as_a_hand_would_write_it(before, path, value, after):
    assert changed(before, path, value) == after


def test_what_stands_behind_an_alias_is_written_out_and_the_anchor_stays():
    before = "a: &x {b: 1}\nc: *x\n"

    after = changed(before, ("c", "d"), 2)

    assert read_yaml(after) == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}
    assert after.startswith("a: &x {b: 1}\n")


@pytest.mark.parametrize(
    ("text", "path"),
    [("a: &x {b: 1}\nc: *x\n", ("a", "d")), ("a: 1\n", ("b", 3, "c")), ("{a", ("b",))],
)
def test_what_cannot_be_written_without_another_change_is_refused(text, path):
    with pytest.raises(CannotMendError):
        changed(text, path, 2)


def test_a_file_of_the_shipped_ones_is_mended_by_adding_one_line():
    text = Path(DEFAULT_ENVOY_FILE).read_text()
    place = ("static_resources", "clusters", 1, "dns_lookup_family")

    lines = changed(text, place, "V4_ONLY").splitlines()

    assert [line for line in lines if line not in text.splitlines()] == [
        "    dns_lookup_family: V4_ONLY"
    ]
