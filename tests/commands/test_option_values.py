"""What options name is checked before any work begins, and the answer says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lodestar_extproc.commands.cli import app
from lodestar_extproc.commands.option_values import (
    file_to_write,
    folder_to_fill,
    listen_address,
    listen_addresses,
)

NOBODY = "http://127.0.0.1:1"


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "80"})


def complaint(shown) -> str:
    """Of a usage error, as one line."""
    assert shown.exit_code == 2, shown.output
    assert "Traceback" not in shown.stderr
    return " ".join(shown.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["load", "--url", NOBODY, "--model", "m", "--json"],
        ["load", "--url", NOBODY, "--model", "m", "--records"],
        ["bench", "--json"],
        ["demo", "--json"],
    ],
)
def test_a_file_in_a_folder_that_is_not_there_is_refused_before_the_run(arguments, tmp_path):
    missing = tmp_path / "nowhere"

    said = complaint(run(*arguments, missing / "out.json"))

    assert f"there is no folder {missing}" in said
    assert f"mkdir -p {missing}" in said


@pytest.mark.parametrize(
    "arguments", [["demo", "--out"], ["bench", "--report"], ["bench", "--keep"]]
)
def test_a_folder_that_is_a_file_is_refused_before_the_run(arguments, tmp_path):
    file = tmp_path / "file"
    file.write_text("")

    assert f"{file} is a file, not a folder" in complaint(run(*arguments, file))
    assert f"{file} is a file, not a folder" in complaint(run(*arguments, file / "below"))


def test_a_file_to_write_is_no_folder_and_may_be_new_or_old(tmp_path):
    old = tmp_path / "old"
    old.write_text("x")

    assert file_to_write(old) == old
    assert file_to_write(tmp_path / "new") == tmp_path / "new"
    assert file_to_write(None) is None
    with pytest.raises(typer.BadParameter, match="name a file in it"):
        file_to_write(tmp_path)
    with pytest.raises(typer.BadParameter, match="is no folder"):
        file_to_write(old / "new")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_may_not_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(typer.BadParameter, match="nothing can be written"):
        file_to_write(tmp_path / "new")
    with pytest.raises(typer.BadParameter, match="nothing can be written"):
        folder_to_fill(tmp_path / "new")


def test_a_place_of_the_kernel_cannot_be_written_even_by_root():
    with pytest.raises(typer.BadParameter, match="nothing can be written in /proc"):
        file_to_write(Path("/proc/lodestar.json"))


def test_a_folder_to_fill_may_be_made_with_those_above_it(tmp_path):
    assert folder_to_fill(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9090", "[::1]:9090", ":9090", "localhost:0", "[::]:65535", "pod-1.ns:80"]
)
def test_an_address_is_taken_as_it_stands(address):
    assert listen_address(address) == address


@pytest.mark.parametrize(
    "address",
    ["nonsense", "", "9090", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536",
     "::1:9090", "http://127.0.0.1:9090", "127.0.0.1:-1", "127.0.0.1:٣", "unix:/tmp/x"],
)  # fmt: skip
def test_what_is_no_address_is_answered_with_one(address):
    with pytest.raises(typer.BadParameter, match=r"write HOST:PORT, as 127\.0\.0\.1:9090"):
        listen_address(address)


@pytest.mark.parametrize("option", ["--admin", "--listen", "--health"])
def test_serve_names_the_option_and_what_it_wants(option, tmp_path):
    said = complaint(run("serve", "--envoy-config", tmp_path / "e.yaml", option, "nonsense"))

    assert option in said
    assert "'nonsense' is no address: write HOST:PORT" in said


def test_a_socket_needs_its_folder(tmp_path):
    assert listen_addresses([f"unix:{tmp_path}/s"]) == [f"unix:{tmp_path}/s"]
    with pytest.raises(typer.BadParameter, match="no such folder"):
        listen_addresses([f"unix:{tmp_path}/none/s"])


def test_a_url_without_a_scheme_is_said():
    assert "write http://HOST:PORT" in complaint(run("load", "--url", "127.0.0.1:8080"))


def test_a_server_that_does_not_answer_is_said_with_what_to_do():
    shown = run("load", "--url", NOBODY)

    assert shown.exit_code == 1
    assert "is it up, and does it speak OpenAI's API?" in shown.stderr
