"""The command `check`: the doctor's report, for people or for machines, and its cures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lodestar_extproc.check.as_json import as_json as report_as_json
from lodestar_extproc.check.doctor import check as diagnose
from lodestar_extproc.check.doctor import check_running
from lodestar_extproc.check.envoy_binary import find_envoy
from lodestar_extproc.commands.fix import fix as fix_file
from lodestar_extproc.commands.report_view import show
from lodestar_extproc.config import NotEnvoyConfig

TRAPS, NOT_ENVOY, NOT_ALL_SEEN = 1, 2, 3  # exit statuses

File = Annotated[
    Path | None,
    typer.Argument(
        help="An Envoy bootstrap, YAML or JSON, or a config dump; - for standard input.",
        show_default=False,
    ),
]


def check(
    file: File = None,
    *,
    envoy_admin: Annotated[
        str | None,
        typer.Option(help="Examine a running Envoy: its admin page, http://127.0.0.1:9901."),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Show what the cures change, then write the file.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --fix: do not ask.")] = False,
    listen: Annotated[
        list[str] | None,
        typer.Option(help="Where Lodestar listens, if it cannot be told which service it is."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON; cures are JSON Patches.")
    ] = False,
    with_envoy: Annotated[
        bool, typer.Option("--envoy/--no-envoy", help="Let Envoy itself validate the file too.")
    ] = True,
) -> None:
    """Find known traps in an Envoy configuration, and say how to cure each.

    Exits with 0 if there are none, 1 if there are some, 2 if it is no Envoy configuration, and 3
    if none was found but something could not be looked at.

    Examples:

        lodestar-extproc check envoy/envoy.yaml

        lodestar-extproc check --fix /etc/envoy/envoy.yaml

        lodestar-extproc check --envoy-admin http://127.0.0.1:9901

        lodestar-extproc check --json dump.json | jq '.findings[].rule'
    """
    if (file is None) == (not envoy_admin):
        raise typer.BadParameter("give either a file or --envoy-admin")
    if fix and (file is None or as_json):
        raise typer.BadParameter("--fix writes a file, and shows what it changes")
    envoy = find_envoy() if with_envoy else None
    try:
        if fix and file is not None:
            fix_file(file, envoy=envoy, asks=not yes, listen=listen or ())
        if file is None:
            report = check_running(envoy_admin or "", listen or ())
        else:
            report = diagnose(file, envoy=envoy, listen=listen or ())
    except NotEnvoyConfig as error:
        if as_json:
            typer.echo(json.dumps({"file": error.file, "error": str(error)}, indent=2))
        else:
            Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(NOT_ENVOY) from None
    if as_json:
        typer.echo(json.dumps(report_as_json(report), indent=2))
    else:
        show(report, Console(highlight=False))
    if report.findings or report.unseen:
        raise typer.Exit(TRAPS if report.findings else NOT_ALL_SEEN)
