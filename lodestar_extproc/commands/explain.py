"""The command `explain`: why a request went where it went, asked of a running service.

It knows the admin server's answers, not how they come about.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from lodestar_extproc.commands.say import complain, tell
from lodestar_extproc.printable import printable, printable_json, printable_values

NOT_FOUND, UNREACHABLE = 1, 2  # exit statuses


def explain(
    decision: Annotated[
        str | None,
        typer.Argument(
            help="A decision id, or the x-request-id of a request.",
            metavar="ID",
            show_default="lists the last decisions",
        ),
    ] = None,
    *,
    admin: Annotated[
        str, typer.Option(help="Admin server of the service.")
    ] = "http://127.0.0.1:9090",
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="How many decisions to list without an ID.")
    ] = 20,
    journal: Annotated[
        list[Path] | None,
        typer.Option(
            help="Look in this journal instead of asking a service; may be repeated.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Show why a request went where it went: every candidate, what was expected, what followed.

    A service knows its last 256 decisions. A journal (setting journal_path) has all that have
    ended, those of yesterday too.

    Exit status: 0, 1 the decision is not known there, 2 no answer, or a file that is no journal.

    Examples:

        lodestar-extproc explain

        lodestar-extproc explain 0c5f9e0e-6d4b-4f3a-9c0e-1f2d3c4b5a69

        lodestar-extproc explain engines.5f1d3a9b2c4e6f70 --admin http://10.0.0.5:9090 --json

        lodestar-extproc explain 0c5f9e0e-6d4b-4f3a-9c0e-1f2d3c4b5a69 --journal journal.jsonl
    """
    # Here, so that `--help` answers at once.
    import orjson  # noqa: PLC0415

    from lodestar_extproc.commands import explain_view  # noqa: PLC0415
    from lodestar_extproc.terminal import Terminal  # noqa: PLC0415

    if journal and decision is None:
        raise typer.BadParameter("--journal wants an ID, of a decision or of a request")
    answer = _written(journal, decision or "") if journal else _asked(admin, decision, limit)
    # An IPv6 address stands in brackets, as markup does.
    console = Terminal(highlight=False, markup=False)
    if as_json:
        tell(printable_json(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode()))
    elif decision is None:
        explain_view.show_decisions(printable_values(answer["decisions"]), console)
    else:
        explain_view.show_explanation(printable_values(answer), console)


def _asked(admin: str, decision: str | None, limit: int) -> dict[str, Any]:
    """What the service says."""
    from urllib.parse import quote  # noqa: PLC0415

    from lodestar_extproc.commands import admin_client  # noqa: PLC0415

    path = f"/decisions?limit={limit}"
    if decision is not None:
        path = f"/explain/{quote(decision, safe='')}"
    try:
        return admin_client.get(admin, path)
    except admin_client.NoSuchDecision as error:
        _fail(
            f"{decision} is {error}; where the setting journal_path is set, "
            "--journal FILE looks further back",
            NOT_FOUND,
        )
    except admin_client.NoAnswer as error:
        _fail(str(error), UNREACHABLE)


def _written(journals: list[Path], decision: str) -> dict[str, Any]:
    """What the journals say."""
    import time  # noqa: PLC0415

    from lodestar_extproc.admin.journal_answer import (  # noqa: PLC0415
        NotInJournals,
        journal_answer,
    )

    try:
        return journal_answer(journals, decision, time.time())
    except NotInJournals:
        names = ", ".join(map(str, journals))
        _fail(
            f"{decision} is not in {names}: an older file may have it, and one that has not "
            "ended yet is in none",
            NOT_FOUND,
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        _fail(str(error), UNREACHABLE)


def _fail(message: str, status: int) -> NoReturn:
    complain(f"error: {printable(message)}")
    raise typer.Exit(status)
