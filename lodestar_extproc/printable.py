"""printable(): text of others, as a terminal or a log may be given it.

A client names its model, its session and its ids as it likes: with escape sequences that rename the
window or clear the screen, line ends that forge a line of the log, marks that turn text round.
"""

from __future__ import annotations

from typing import Any


def printable(text: str) -> str:
    r"""*text* with every character escaped that shows nothing of itself; the space stays.

    >>> print(printable("m\x1b[2J\n\x9b1m"))
    m\x1b[2J\n\x9b1m
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def printable_lines(text: str) -> str:
    """The same, and line feeds stay: for text that is laid out."""
    if text.isprintable():
        return text
    return "\n".join(map(printable, text.split("\n")))


def printable_values(value: Any) -> Any:
    """The same of all texts in a JSON *value*, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [printable_values(each) for each in value]
    if isinstance(value, dict):
        return {printable(key): printable_values(each) for key, each in value.items()}
    return value


def printable_json(text: str) -> str:
    """A JSON *text* of the same meaning that is printable but for its line ends."""
    lines = text.split("\n")
    return "\n".join(
        line
        if line.isprintable()
        else "".join(c if c.isprintable() else _escaped_in_json(c) for c in line)
        for line in lines
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def _escaped_in_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
