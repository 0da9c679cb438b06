"""`simulate` as a process, and the list of instances it takes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from lodestar_extproc.simulator.instances import parse_instances

MAIN = "import typer; from lodestar_extproc.commands.simulate import simulate; typer.run(simulate)"


def simulate(*arguments: str, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", before + MAIN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def two_free_ports() -> int:
    """The first of two ports in a row that nobody listens on."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 1)),
        ):
            return port
    raise AssertionError("no two free ports in a row")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_instances_listen_on_consecutive_ports_until_a_signal(number):
    port = two_free_ports()
    with simulate("--instances", "a30,v100", "--port", str(port)) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            assert [line.split()[0] for line in lines] == ["a30", "v100"]
            assert lines[1].split()[1] == f"http://127.0.0.1:{port + 1}"
            for line in lines:
                with urllib.request.urlopen(line.split()[1] + "/health", timeout=5) as response:
                    assert response.status == 200
            process.send_signal(number)
            assert process.wait(timeout=10) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_an_unknown_accelerator_is_named_with_the_known_ones():
    with simulate("--accelerator", "tpu") as process:
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "tpu" in complaint
    assert "a30" in complaint


def test_a_taken_port_is_reported(unused_tcp_port):
    with (
        socket.create_server(("127.0.0.1", unused_tcp_port)),
        simulate("--port", str(unused_tcp_port)) as process,
    ):
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "choose another --port" in complaint


def test_without_its_extra_it_says_what_to_install():
    with simulate(before="import sys; sys.modules['numba'] = None; ") as process:
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "lodestar-extproc[simulator]" in complaint


def test_a_list_names_accelerators_and_numbers():
    specs = parse_instances("a30:2, v100,h100:1")
    assert [spec.accelerator for spec in specs] == ["a30", "a30", "v100", "h100"]


def test_a_capacity_in_tokens_replaces_the_accelerators():
    assert {spec.kv_tokens for spec in parse_instances("a30,h100", 8_000)} == {8_000}


def test_a_longer_context_can_be_asked_for():
    short, long = parse_instances("a30")[0], parse_instances("h200", None, 250_000)[0]

    assert short.longest_request_tokens == 30_000
    assert long.longest_request_tokens == 250_000


@pytest.mark.parametrize(
    "text", ["", "b200", "a30:0", "a30:-1", "a30:x", "a30:999", "a30:200,a30:200"]
)
def test_a_bad_list_is_refused(text):
    with pytest.raises(ValueError, match=r"known:|from 1 to|at most"):
        parse_instances(text)
