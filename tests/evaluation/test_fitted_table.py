"""A table is whole where it fits, and paragraphs where it does not; nothing is ever cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lodestar_extproc.evaluation.fitted_table import FittedTable


def shown(table: FittedTable, width: int) -> str:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def a_table() -> FittedTable:
    table = FittedTable(("endpoint", "TTFT s", "decodes"), title="endpoints")
    table.add("[fd00::7]:8000", "0.250", "12", emphasis=True)
    table.add("10.0.0.1:8000", "", "3")
    return table


def test_it_is_a_table_where_it_fits():
    assert [line.split() for line in shown(a_table(), 40).splitlines()] == [
        ["endpoints"],
        ["endpoint", "TTFT", "s", "decodes"],
        ["[fd00::7]:8000", "0.250", "12"],
        ["10.0.0.1:8000", "3"],
    ]


def test_it_is_one_paragraph_a_row_where_it_does_not():
    assert [line.rstrip() for line in shown(a_table(), 30).splitlines()] == [
        "endpoints",
        "[fd00::7]:8000",
        "  TTFT s 0.250, decodes 12",
        "10.0.0.1:8000",
        "  decodes 3",
    ]


WORDS = st.text("abc.:[]-_", min_size=1, max_size=30)


@pytest.mark.filterwarnings("ignore")
@given(
    st.lists(WORDS, min_size=2, max_size=6, unique=True).flatmap(
        lambda columns: st.tuples(
            st.just(columns),
            st.lists(st.lists(WORDS, min_size=len(columns), max_size=len(columns)), max_size=4),
        )
    ),
    st.integers(20, 120),
)
def test_every_text_is_there_whole_whatever_the_width(made, width):
    columns, rows = made
    text = shown(FittedTable(tuple(columns), rows=[tuple(row) for row in rows]), width)

    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    unbroken = "".join(text.split())
    for cell in (cell for row in rows for cell in row):
        assert cell in unbroken
