"""as_json(): a report for machines; `findings[].cure` is a JSON Patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestar_extproc.check.running.origin import origin_of

if TYPE_CHECKING:
    from lodestar_extproc.check.finding import Finding, Patch, Report
    from lodestar_extproc.check.running.origin import Origin


def as_json(report: Report) -> dict[str, object]:
    """What was found; of a running Envoy, patches begin at the resource they name."""
    return {
        "file": report.source,
        "envoy_version": report.envoy_version,
        "findings": [_finding(report, finding) for finding in report.findings],
        "hints": [_finding(report, hint) for hint in report.hints],
        "not_looked_at": [{"what": unseen.what, "where": unseen.where} for unseen in report.unseen],
    }


def _finding(report: Report, finding: Finding) -> dict[str, object]:
    origin = {} if finding.origin is None else {"resource": _resource(finding.origin)}
    return {
        "rule": finding.rule,
        "file": finding.file,
        "line": finding.line,
        "key": finding.key,
        "problem": finding.problem,
        "cure": [_operation(report, patch) for patch in finding.cure],
        **origin,
    }


def _operation(report: Report, patch: Patch) -> dict[str, object]:
    origin, depth = origin_of(report.origins, patch.path)
    if origin is None:
        elsewhere = {} if patch.file == report.source else {"file": patch.file}
        return {**patch.operation, **elsewhere}
    return {**patch.below(depth).operation, "resource": _resource(origin)}


def _resource(origin: Origin) -> dict[str, str]:
    return {"kind": origin.kind, "name": origin.name, "source": origin.source}
