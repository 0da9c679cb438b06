"""The command `check`: the doctor's report, for people or for machines, and its cures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar_extproc.commands.say import complain, tell

if TYPE_CHECKING:
    from lodestar_extproc.check.finding import Report

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
    # Here, so that `--help` answers at once.
    from lodestar_extproc.check.as_json import as_json as report_as_json  # noqa: PLC0415
    from lodestar_extproc.commands.report_view import show  # noqa: PLC0415
    from lodestar_extproc.config import NotEnvoyConfig  # noqa: PLC0415
    from lodestar_extproc.terminal import Terminal  # noqa: PLC0415

    wanted = Wanted(file, envoy_admin or "", tuple(listen or ()), with_envoy)
    try:
        report = _report(wanted, fixes=fix, asks=not yes)
    except NotEnvoyConfig as error:
        if as_json:
            tell(json.dumps({"file": error.file, "error": str(error)}, indent=2))
        else:
            complain(str(error))
        raise typer.Exit(NOT_ENVOY) from None
    if as_json:
        tell(json.dumps(report_as_json(report), indent=2))
    else:
        show(report, Terminal(highlight=False))
    if report.findings or report.unseen:
        raise typer.Exit(TRAPS if report.findings else NOT_ALL_SEEN)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be examined: a file, else the Envoy of an admin page."""

    file: Path | None
    envoy_admin: str
    listen: tuple[str, ...]
    with_envoy: bool


def _report(wanted: Wanted, *, fixes: bool, asks: bool) -> Report:
    from lodestar_extproc.check.doctor import check as diagnose  # noqa: PLC0415
    from lodestar_extproc.check.doctor import check_running  # noqa: PLC0415
    from lodestar_extproc.check.envoy_binary import find_envoy  # noqa: PLC0415
    from lodestar_extproc.commands.fix import fix as fix_file  # noqa: PLC0415

    if wanted.file is None:
        return check_running(wanted.envoy_admin, wanted.listen)
    envoy = find_envoy() if wanted.with_envoy else None
    if fixes:
        fix_file(wanted.file, envoy=envoy, asks=asks, listen=wanted.listen)
    return diagnose(wanted.file, envoy=envoy, listen=wanted.listen)
