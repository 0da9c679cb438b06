"""Text of others, in whatever a command shows, commands no terminal."""

from __future__ import annotations

import ast
import asyncio
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from ruamel.yaml import YAML
from typer.testing import CliRunner

import lodestar_extproc
from asked_engine import VLLM, AskedEngine
from lodestar_extproc.commands.cli import app
from lodestar_extproc.terminal import Terminal

PACKAGE = Path(lodestar_extproc.__file__).parent
JOURNAL = Path(__file__).parents[1] / "evaluation" / "journals" / "format_1.jsonl"
SPEAKS = {"terminal.py", "commands/say.py"}
HOSTILE = "m\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\rx"
"""It names the window, clears the screen, and turns the line round."""


def shown_by(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


def assert_harmless(shown: str) -> None:
    assert shown
    assert all(line.isprintable() for line in shown.split("\n")), repr(shown)
    assert "owned" in shown, "it was not shown at all"


@given(st.text())
def test_a_terminal_shows_nothing_that_commands_it(text):
    out = io.StringIO()
    terminal = Terminal(file=out, width=80)
    table = Table(title=Text(text))
    table.add_column(Text(text))
    table.add_row(Text(text))
    for what in (Text(text), table):
        terminal.print(what)
    terminal.print(text, markup=False)

    assert all(line.isprintable() for line in out.getvalue().split("\n"))


def test_colours_are_still_there_for_who_looks_on():
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, color_system="standard").print(Text("x", style="red"))

    assert "\x1b[31mx" in out.getvalue()


def test_nothing_is_shown_past_the_two_that_escape():
    """The kind, not the instance: whoever prints, prints by them."""
    past = []
    for file in PACKAGE.rglob("*.py"):
        name = str(file.relative_to(PACKAGE))
        if name in SPEAKS or name.startswith("generated"):
            continue
        text = file.read_text()
        for node in ast.walk(ast.parse(text)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("Console", "typer.echo", "typer.secho", "click.echo", "print"):
                past.append(f"{name}:{node.lineno}: {called}")
            of_rich = called == "Progress" and "from rich.progress" in text
            if of_rich and not any(k.arg == "console" for k in node.keywords):
                past.append(f"{name}:{node.lineno}: a Progress of rich's own console")
    # Pages of docs are written to a file by `python -m`; a doctest is no code.
    assert [each for each in past if "__main__" not in each] == []


def test_check_shows_names_of_an_envoy_file_escaped(tmp_path):
    config = YAML(typ="safe").load(PACKAGE / "setup" / "files" / "envoy.yaml")
    for cluster in config["static_resources"]["clusters"]:
        cluster["name"] = HOSTILE
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(config))

    assert_harmless(shown_by("check", "--no-envoy", str(file)))


def test_check_says_what_is_no_envoy_configuration_escaped(tmp_path):
    file = tmp_path / "envoy.yaml"
    file.write_text(f"a: &{'x' * 3}\n  {json.dumps(HOSTILE)}: [\n")

    shown = shown_by("check", "--no-envoy", str(file))
    assert all(line.isprintable() for line in shown.split("\n"))


async def test_init_shows_what_engines_say_of_themselves_escaped(tmp_path):
    pages = VLLM | {"/v1/models": {"data": [{"id": HOSTILE}]}, "/version": {"version": HOSTILE}}
    async with AskedEngine(pages) as engine:
        file = str(tmp_path / "envoy.yaml")
        shown = await asyncio.to_thread(shown_by, "init", engine.address, "-o", file)

    assert_harmless(shown)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_replay_shows_names_of_a_journal_escaped(tmp_path, options):
    first, *lines = JOURNAL.read_text().splitlines()
    journal = tmp_path / "journal.jsonl"
    others = [json.dumps(json.loads(line) | {"pool": HOSTILE}) for line in lines]
    journal.write_text("\n".join([first, *others]) + "\n")

    assert_harmless(shown_by("replay", str(journal), *options))


def test_an_error_that_names_a_file_of_others_is_escaped(tmp_path):
    shown = shown_by("replay", str(tmp_path / HOSTILE.replace("/", "")))

    assert_harmless(shown)
