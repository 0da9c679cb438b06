"""The command `explain`: why a request went where it went, asked of a running service.

It knows the admin server's answers, not how they come about.
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

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
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Show why a request went where it went: every candidate, what was expected, what followed.

    Exit status: 0, 1 the decision is not among the last ones, 2 the service does not answer.

    Examples:

        lodestar-extproc explain

        lodestar-extproc explain 0c5f9e0e-6d4b-4f3a-9c0e-1f2d3c4b5a69

        lodestar-extproc explain engines.5f1d3a9b2c4e6f70 --admin http://10.0.0.5:9090 --json
    """
    # Here, so that `--help` answers at once.
    from urllib.parse import quote  # noqa: PLC0415

    import orjson  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    from lodestar_extproc.commands import admin_client, explain_view  # noqa: PLC0415

    path = f"/decisions?limit={limit}"
    if decision is not None:
        path = f"/explain/{quote(decision, safe='')}"
    try:
        answer = admin_client.get(admin, path)
    except admin_client.NoSuchDecision as error:
        _fail(f"{decision} is {error}", NOT_FOUND)
    except admin_client.NoAnswer as error:
        _fail(str(error), UNREACHABLE)
    # An IPv6 address stands in brackets, as markup does.
    console = Console(highlight=False, markup=False)
    if as_json:
        typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    elif decision is None:
        explain_view.show_decisions(answer["decisions"], console)
    else:
        explain_view.show_explanation(answer, console)


def _fail(message: str, status: int) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise typer.Exit(status)
