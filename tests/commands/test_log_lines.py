"""The log: one entry, one line, and nothing that commands a terminal."""

import io
import logging

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar_extproc.commands.log_lines import LogLines
from lodestar_extproc.printable import printable, printable_json


def logged(text: str, error: Exception | None = None) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LogLines())
    record = logging.LogRecord(
        "lodestar", logging.WARNING, __file__, 1, "said: %s", (text,), error and exc_info(error)
    )
    handler.emit(record)
    return out.getvalue()


def exc_info(error: Exception):
    try:
        raise error  # noqa: TRY301
    except Exception as caught:  # noqa: BLE001
        return type(caught), caught, caught.__traceback__


FORGED = "x\n2026-01-01 00:00:00,000 INFO    lodestar: all is well"


@given(st.text())
def test_an_entry_is_one_printable_line_whatever_it_tells(text):
    (line,) = logged(text).removesuffix("\n").split("\n")
    assert line.isprintable()


@pytest.mark.parametrize("separator", ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_no_line_of_an_error_looks_like_an_entry(separator):
    first, *rest = logged("a", ValueError(FORGED.replace("\n", separator))).splitlines()
    assert "WARNING" in first
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


@given(st.text())
def test_printable_text_stays_and_nothing_else_is_lost(text):
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize("text", ['"\\u009b \x9b \u2028 \U000e0001"', '["\u202e",\n "a"]'])
def test_json_means_the_same(text):
    assert orjson.loads(printable_json(text)) == orjson.loads(text)
    assert printable_json(text).replace("\n", "").isprintable()
