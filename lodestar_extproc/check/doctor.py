"""check(): every known trap in an Envoy configuration, each with what cures it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lodestar_extproc.check.envoy_binary import Validation, validate
from lodestar_extproc.check.examination import examine, hints, unseen
from lodestar_extproc.check.finding import Finding, Report, Unseen
from lodestar_extproc.check.running import admin
from lodestar_extproc.check.running.config_dump import (
    RunningConfig,
    is_config_dump,
    read_config_dump,
    read_document,
)
from lodestar_extproc.check.running.located import in_resource
from lodestar_extproc.check.subject import Subject, subject_of
from lodestar_extproc.config import ConfigError, NotEnvoyConfig
from lodestar_extproc.config.node import parse_node
from lodestar_extproc.config.resources import read_resources
from lodestar_extproc.config.schema import BOOTSTRAP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lodestar_extproc.config.node import Node


def check(path: Path, *, envoy: str | None = None, listen: Sequence[str] = ()) -> Report:
    """Look for every trap in the file at *path*: an Envoy configuration, or a config dump.

    Args:
        envoy: an Envoy binary to validate the file with; None leaves that out.
        listen: where Lodestar listens, if the configuration does not tell who it is.

    Raises:
        NotEnvoyConfig: it is something else, or cannot be read.
    """
    text = read_text(path)
    document = read_document(text, str(path))
    if is_config_dump(document):
        return _report_of(read_config_dump(document), str(path), listen)
    subject = examined(text, path, listen)
    validation = validate(envoy, path) if envoy and str(path) != "-" else None
    findings = sorted((*_refused(validation, path), *examine(subject, path)), key=_in_order)
    return Report(
        str(path),
        tuple(findings),
        unseen=(*unseen(subject, path), *_not_here(validation)),
        envoy_version=validation.version if validation else None,
        validated=validation is not None,
        hints=tuple(hints(subject, path)),
    )


def check_running(url: str, listen: Sequence[str] = ()) -> Report:
    """Look for every trap in what the Envoy with the admin page at *url* runs by.

    Raises:
        NotEnvoyConfig: nobody answers there, or no Envoy.
    """
    url = admin.admin_url(url)
    running = read_config_dump(admin.config_dump(url))
    return _report_of(running, url, listen, admin.clusters(url))


def read_text(path: Path) -> str:
    """The file at *path*; of `-`, standard input.

    Raises:
        NotEnvoyConfig: it cannot be read.
    """
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NotEnvoyConfig(f"cannot be read: {error}", file=str(path)) from error


def examined(text: str, path: Path, listen: Sequence[str] = ()) -> Subject:
    """What the rules look at in *text*, the contents of *path*.

    Raises:
        NotEnvoyConfig: it is no Envoy bootstrap.
    """
    return subject_of(read_resources(root_of(text, path), path), listen)


def root_of(text: str, path: Path) -> Node:
    """The tree of *text*, the contents of *path*.

    Raises:
        NotEnvoyConfig: it is no Envoy bootstrap.
    """
    try:
        root = parse_node(text, str(path), BOOTSTRAP)
    except ConfigError as error:
        raise NotEnvoyConfig(error.problem, file=error.file, line=error.line) from error
    if not root.get("static_resources") and not root.get("dynamic_resources"):
        raise NotEnvoyConfig(f"is not an Envoy bootstrap: {_other_kind(root)}", file=str(path))
    return root


def _other_kind(root: Node) -> str:
    written = root.value if isinstance(root.value, dict) else {}
    if "apiVersion" in written:
        return (
            f"it is a Kubernetes object, {written.get('kind')}; what came of it in a proxy is "
            "shown by --envoy-admin or a config dump"
        )
    return "it has no static_resources and no dynamic_resources"


def _refused(validation: Validation | None, path: Path) -> Iterator[Finding]:
    if validation and validation.problem and not validation.missing_file:
        problem = f"Envoy {validation.version} refuses the file: {validation.problem}"
        yield Finding("envoy", str(path), 1, (), problem)


def _not_here(validation: Validation | None) -> Iterator[Unseen]:
    if validation and validation.missing_file:
        what = f"what Envoy says of the file: {validation.missing_file} is not on this machine"
        yield Unseen(what, validation.missing_file)


def _in_order(finding: Finding) -> tuple[str, int]:
    return finding.file, finding.line


# -- a running Envoy -----------------------------------------------------------------------------


def _report_of(
    running: RunningConfig, source: str, listen: Sequence[str], statuses: Node | None = None
) -> Report:
    path = Path(source)
    subject = subject_of(read_resources(running.root, path), listen)
    found = (*_refused_updates(running), *examine(subject, path))
    now = () if statuses is None else _states(subject, statuses)
    told = (*now, *hints(subject, path))
    return Report(
        source,
        tuple(in_resource(running.origins, finding) for finding in found),
        unseen=(*running.unseen, *unseen(subject, path, running.origins)),
        envoy_version=running.version or None,
        hints=tuple(in_resource(running.origins, hint) for hint in told),
        origins=running.origins,
    )


def _refused_updates(running: RunningConfig) -> Iterator[Finding]:
    for refusal in running.refusals:
        problem = f"Envoy refused its newest version and goes on by another: {refusal.problem}"
        yield Finding("refused_update", running.root.file, 0, (), problem, origin=refusal.origin)


def _states(subject: Subject, statuses: Node) -> Iterator[Finding]:
    """What Envoy cannot reach now, of the clusters that concern us."""
    for cluster in (*subject.service.clusters, *subject.pools):
        counted = admin.healthy_hosts(statuses, cluster.get("name").text)
        if counted is not None and counted[0] == 0:
            held = f"holds all {counted[1]} hosts unhealthy" if counted[1] else "knows no host"
            problem = f"just now Envoy {held}"
            yield Finding("unreachable", cluster.file, 0, cluster.path, problem)
