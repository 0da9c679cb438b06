"""tell() and complain(): lines for people, printable whatever text of others stands in them."""

from __future__ import annotations

import typer

from lodestar_extproc.printable import printable_lines


def tell(text: str, *, err: bool = False, fg: str | None = None) -> None:
    """Write *text*, in colour where someone looks on."""
    typer.secho(printable_lines(text), fg=fg, err=err)


def complain(text: str) -> None:
    """Write what is wrong, in red, where it is no part of an answer."""
    tell(text, err=True, fg="red")
