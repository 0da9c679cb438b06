"""show(): the doctor's report for people, with the YAML that cures each trap."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING

from rich.text import Text
from ruamel.yaml import YAML

from lodestar_extproc.check.running.origin import origin_of
from lodestar_extproc.check.words import words

if TYPE_CHECKING:
    from rich.console import Console

    from lodestar_extproc.check.finding import Finding, Patch, Report


def show(report: Report, console: Console) -> None:
    """Print every finding with its cure, what was not looked at, and the sum of it."""
    for finding in report.findings:
        _show_finding(report, finding, console, "bold red")
    for hint in report.hints:
        _show_finding(report, hint, console, "bold yellow")
    for unseen in report.unseen:
        console.print(
            Text(f"not looked at  {unseen.what} ({unseen.where})", style="yellow"), soft_wrap=True
        )
    style = "red" if report.findings else "yellow" if report.unseen else "green"
    console.print(Text(f"{report.source}: {verdict(report)}", style=style), soft_wrap=True)


def verdict(report: Report) -> str:
    """The report in a line: `2 traps, 1 hint, validated by Envoy 1.40.0`."""
    traps = _counted(len(report.findings), "trap")
    if report.unseen:
        traps += f" in what was looked at, {_counted(len(report.unseen), 'part')} not looked at"
    said = [traps, *([_counted(len(report.hints), "hint")] if report.hints else [])]
    version = report.envoy_version or "of unknown version"
    if any(finding.origin for finding in report.findings) or report.origins:
        said.append(f"as Envoy {version} runs it")
    else:
        said.append(
            f"validated by Envoy {version}" if report.validated else "not validated by Envoy itself"
        )
    return ", ".join(said)


def _counted(n: int, what: str) -> str:
    return f"no {what}s" if n == 0 else f"1 {what}" if n == 1 else f"{n} {what}s"


def _show_finding(report: Report, finding: Finding, console: Console, style: str) -> None:
    heading = Text(f"{_place(finding)}  ", style="bold")
    heading.append(finding.rule, style=style)
    lines = [heading, Text(f"  {finding.problem}")]
    for patch in finding.cure:
        lines.append(Text(f"  {_instruction(report, patch)}:", style="dim"))
        lines.append(Text(textwrap.indent(_yaml(patch), "    "), style="cyan"))
    for line in (*lines, Text()):
        console.print(line, soft_wrap=True)


def _place(finding: Finding) -> str:
    if finding.origin is None:
        return f"{finding.file}:{finding.line}"
    return f"{finding.origin}: {finding.key}" if finding.key else f"{finding.origin}"


def _instruction(report: Report, patch: Patch) -> str:
    verb = "remove" if patch.value is None else "insert" if patch.inserts else "set"
    origin, depth = origin_of(report.origins, patch.path)
    above = words(patch.path[depth:-1])
    of = f" of {origin}" if origin else "" if patch.file == report.source else f" of {patch.file}"
    return f"{verb}, under {above}{of}" if above else f"{verb}, at the top{of}"


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
