"""The command `check`: what it prints, how it ends, and what --fix writes."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import DEFAULT_ENVOY_FILE, an_envoy_file
from lodestar_extproc.check import check, find_envoy
from lodestar_extproc.commands import fix as fix_module
from lodestar_extproc.commands.cli import app

NO_TIMEOUT = ("                  timeout: 0s\n", "")
BY_XDS = (
    "      - name: envoy.filters.network.http_connection_manager\n",
    """\
      - {name: other, config_discovery: {config_source: {ads: {}}, type_urls: [x]}}
      - name: envoy.filters.network.http_connection_manager
""",
)


def invoke(*arguments, **given):
    return CliRunner().invoke(app, ["check", *map(str, arguments)], **given)


def test_it_ends_by_what_it_found(tmp_path):
    (tmp_path / "other.yaml").write_text("a: 1")
    trapped = an_envoy_file(tmp_path, NO_TIMEOUT, name="trapped.yaml")
    partly = an_envoy_file(tmp_path, BY_XDS, name="partly.yaml")

    assert invoke(DEFAULT_ENVOY_FILE).exit_code == 0
    assert invoke(trapped).exit_code == 1
    for nothing in (tmp_path / "other.yaml", tmp_path / "nowhere.yaml"):
        assert invoke(nothing).exit_code == 2
    assert invoke("--no-envoy", partly).exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("x.yaml", "--envoy-admin", "y"),
        ("--fix", "--envoy-admin", "y"),
        ("x", "--fix", "--json"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments):
    assert invoke(*arguments).exit_code == 2


def test_it_shows_line_reason_and_yaml_to_write(tmp_path):
    path = an_envoy_file(tmp_path, NO_TIMEOUT)

    result = invoke("--no-envoy", path)

    assert f"{path}:100  answer_timers" in result.stdout
    assert "longer than 15 s is cut off" in result.stdout
    assert "under static_resources.listeners[0].filter_chains[0]" in result.stdout
    assert "    timeout: 0s\n" in result.stdout
    assert "1 trap, not validated by Envoy itself" in result.stdout


def test_it_says_what_it_has_not_looked_at(tmp_path):
    path = an_envoy_file(tmp_path, BY_XDS)

    shown = invoke("--no-envoy", path).stdout
    told = json.loads(invoke("--no-envoy", "--json", path).stdout)

    assert "not looked at  the typed extension configs of xDS" in shown
    assert "no traps in what was looked at, 1 part not looked at" in shown
    assert [part["what"] for part in told["not_looked_at"]] == [
        "the typed extension configs of xDS"
    ]


def test_it_speaks_json(tmp_path):
    reset = an_envoy_file(tmp_path, ("retry_on: connect-failure", "retry_on: reset"))

    report = json.loads(invoke("--json", reset).stdout)
    failed = json.loads(invoke("--json", tmp_path / "nowhere.yaml").stdout)

    (finding,) = report["findings"]
    assert (finding["rule"], finding["file"]) == ("retry_on_reset", str(reset))
    assert finding["cure"][0]["op"] == "add"
    assert finding["cure"][0]["path"].startswith("/static_resources/listeners/0/")
    assert report["envoy_version"].count(".") == 2
    assert "cannot be read" in failed["error"]


def test_it_reads_standard_input():
    assert invoke("-", input=DEFAULT_ENVOY_FILE.read_text()).exit_code == 0


# -- --fix -------------------------------------------------------------------------------------

TRAPPED = (
    NO_TIMEOUT,
    (
        "              failure_mode_allow: true\n              # The cluster the route",
        "              # The cluster the route",
    ),
    ("max_retries: 256}", "max_retries: 256}, {priority: HIGH}"),
    ("    common_lb_config: {healthy_panic_threshold: {value: 0}}\n", ""),
)


def trapped_file(folder: Path) -> Path:
    return an_envoy_file(folder, NO_TIMEOUT, TRAPPED[1], TRAPPED[3])


def test_fix_shows_what_changes_and_writes_no_more_than_that(tmp_path):
    path = trapped_file(tmp_path)
    before = path.read_text().splitlines()

    result = invoke("--fix", "--yes", path)

    after = path.read_text().splitlines()
    added = [line for line in after if line not in before]
    assert result.exit_code == 0
    assert set(before) <= set(after)
    assert "+                  timeout: 0s" in result.stdout
    assert [line.strip() for line in added] == [
        "timeout: 0s",
        "common_lb_config:",
        "healthy_panic_threshold:",
        "value: 0",
    ]
    assert check(path, envoy=find_envoy()).findings == ()
    # In a second run there is nothing to cure.
    again = path.read_text()
    assert "@@" not in invoke("--fix", "--yes", path).stdout
    assert path.read_text() == again


def test_fix_asks_and_heeds_the_answer(tmp_path, monkeypatch):
    path = trapped_file(tmp_path)
    before = path.read_text()
    asked = []

    def answer(question, *, default):
        asked.append(question)
        return len(asked) > 1

    monkeypatch.setattr(fix_module.sys, "stdin", type("Terminal", (), {"isatty": lambda _: True})())
    monkeypatch.setattr(fix_module.typer, "confirm", answer)

    with pytest.raises(fix_module.typer.Exit):
        fix_module.fix(path, envoy=None, asks=True)
    assert path.read_text() == before
    fix_module.fix(path, envoy=None, asks=True)
    assert path.read_text() != before
    assert asked == [f"Write {path}?"] * 2


def test_fix_writes_nothing_where_nobody_can_be_asked(tmp_path):
    path = trapped_file(tmp_path)
    before = path.read_text()

    result = invoke("--fix", path)

    assert (result.exit_code, path.read_text()) == (1, before)
    assert "--yes writes it" in result.output


def test_fix_keeps_rights_links_and_line_ends(tmp_path):
    path = trapped_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    path.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)

    assert invoke("--fix", "--yes", link).exit_code == 0

    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_fix_says_where_it_cannot_write(tmp_path):
    path = trapped_file(tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert "cannot be written" in invoke("--fix", "--yes", path).output
    finally:
        tmp_path.chmod(0o700)


def test_fix_writes_nothing_that_envoy_would_refuse(tmp_path):
    path = trapped_file(tmp_path)
    before = path.read_text()
    # It accepts only what is without the cure.
    envoy = tmp_path / "envoy"
    envoy.write_text('#!/bin/sh\n[ "$1" = --version ] || ! grep -q " timeout: 0s" "$6"\n')
    envoy.chmod(0o755)

    with pytest.raises(fix_module.typer.Exit):
        fix_module.fix(path, envoy=str(envoy), asks=False)
    assert path.read_text() == before


def test_what_an_anchor_shares_with_others_is_left_to_its_writer(tmp_path):
    path = an_envoy_file(
        tmp_path,
        (
            "              processing_mode:\n                request_header_mode: SEND",
            "              processing_mode: &modes\n                request_header_mode: SKIP",
        ),
        (
            "          - name: envoy.filters.http.router\n",
            SHARING + "          - name: envoy.filters.http.router\n",
        ),
    )
    before = path.read_text()

    result = invoke("--fix", "--yes", "--no-envoy", path)

    assert "not cured  processing_mode" in result.stdout
    assert path.read_text() == before


SHARING = """\
          - name: guardrail
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service: {envoy_grpc: {cluster_name: guardrail}}
              processing_mode: *modes
"""
