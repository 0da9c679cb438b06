"""The command `check`: the doctor's report, for people or for machines."""

from __future__ import annotations

import io
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text
from ruamel.yaml import YAML

from lodestar_extproc.check.doctor import check as diagnose
from lodestar_extproc.check.envoy_binary import find_envoy
from lodestar_extproc.config import NotEnvoyConfig

if TYPE_CHECKING:
    from lodestar_extproc.check.finding import Finding, Patch, Report
    from lodestar_extproc.config.node import Key

TRAPS, NOT_ENVOY = 1, 2  # exit statuses


def check(
    file: Annotated[Path, typer.Argument(help="An Envoy bootstrap, YAML or JSON.")],
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON; cures are JSON Patches.")
    ] = False,
    with_envoy: Annotated[
        bool, typer.Option("--envoy/--no-envoy", help="Let Envoy itself validate the file too.")
    ] = True,
) -> None:
    """Find known traps in an Envoy configuration, and say how to cure each.

    Exits with 0 if there are none, 1 if there are some, 2 if the file is no Envoy configuration.

    Examples:

        lodestar-extproc check envoy/envoy.yaml

        lodestar-extproc check --json /etc/envoy/envoy.yaml | jq '.findings[].rule'
    """
    try:
        report = diagnose(file, envoy=find_envoy() if with_envoy else None)
    except NotEnvoyConfig as error:
        if as_json:
            typer.echo(json.dumps({"file": str(file), "error": str(error)}, indent=2))
        else:
            Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(NOT_ENVOY) from None
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show(report, Console(highlight=False))
    if report.findings:
        raise typer.Exit(TRAPS)


def show(report: Report, console: Console) -> None:
    """Print every finding with the YAML that cures it."""
    for finding in report.findings:
        _show_finding(report, finding, console, "bold red")
    for hint in report.hints:
        _show_finding(report, hint, console, "bold yellow")
    validated = (
        f"validated by Envoy {report.envoy_version}"
        if report.envoy_version
        else "not validated by Envoy itself"
    )
    verdict = [_counted(len(report.findings), "trap"), validated]
    if report.hints:
        verdict.insert(1, _counted(len(report.hints), "hint"))
    style = "red" if report.findings else "green"
    summary = Text(f"{report.path}: {', '.join(verdict)}", style=style)
    console.print(summary, soft_wrap=True)


def _counted(n: int, what: str) -> str:
    return f"no {what}s" if n == 0 else f"1 {what}" if n == 1 else f"{n} {what}s"


def _show_finding(report: Report, finding: Finding, console: Console, style: str) -> None:
    heading = Text(f"{report.path}:{finding.line}  ", style="bold")
    heading.append(finding.rule, style=style)
    lines = [heading, Text(f"  {finding.problem}")]
    for patch in finding.cure:
        verb = "remove" if patch.value is None else "set"
        lines.append(Text(f"  {verb}, under {_words(patch.path[:-1])}:", style="dim"))
        lines.append(Text(textwrap.indent(_yaml(patch), "    "), style="cyan"))
    for line in (*lines, Text()):
        console.print(line, soft_wrap=True)


def _yaml(patch: Patch) -> str:
    """The lines that belong under the parent of the patch's place."""
    key = patch.path[-1]
    if patch.value is None:
        return f"{key}: ..."
    text = io.StringIO()
    yaml = YAML()
    yaml.width = 200
    yaml.dump([patch.value] if isinstance(key, int) else {key: patch.value}, text)
    return text.getvalue().rstrip("\n")


def _words(path: tuple[Key, ...]) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return "".join(parts).removeprefix(".")
