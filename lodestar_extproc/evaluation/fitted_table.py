"""FittedTable: a table where it fits the width, else one paragraph a row; nothing is ever cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2  # columns of white space between two columns of a table


@dataclass(slots=True)
class FittedTable:
    """Rows for people, for `Console.print`.

    Attributes:
        left: how many columns at the left hold names; the others hold figures. Where the table is
            wider than the screen, they head each row's paragraph.
        rows: texts, as many a row as *columns*; an empty one is left out of a paragraph.
        emphasised: numbers of the rows that stand out.
    """

    columns: tuple[str, ...]
    left: int = 1
    title: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    emphasised: set[int] = field(default_factory=set)

    def add(self, *texts: str, emphasis: bool = False) -> None:
        """One more row."""
        if emphasis:
            self.emphasised.add(len(self.rows))
        self.rows.append(texts)

    @property
    def width(self) -> int:
        """Columns of the screen it takes as a table."""
        lines = [self.columns, *self.rows]
        widest = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return sum(widest) + GAP * (len(widest) - 1)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """As a table, or as paragraphs."""
        if self.title:
            yield Text(self.title, style="bold")
        if self.width <= options.max_width:
            yield self._table()
        else:
            for number, row in enumerate(self.rows):
                style = "bold" if number in self.emphasised else ""
                yield Text(" ".join(filter(None, row[: self.left])), style=style or "cyan")
                for line in self._figures(row, options.max_width):
                    yield Text(f"  {line}", overflow="fold")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        for number, name in enumerate(self.columns):
            justify = "left" if number < self.left else "right"
            table.add_column(Text(name), justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for number, row in enumerate(self.rows):
            style = "bold" if number in self.emphasised else ""
            table.add_row(*map(Text, row), style=style)
        return table

    def _figures(self, row: tuple[str, ...], width: int) -> Iterator[str]:
        """Name and figure after each other, broken between two of them."""
        line = ""
        for name, text in zip(self.columns[self.left :], row[self.left :], strict=True):
            if not text:
                continue
            pair = f"{name} {text}"
            if line and len(line) + len(pair) + 4 > width:
                yield line
                line = ""
            line = f"{line}, {pair}" if line else pair
        if line:
            yield line
