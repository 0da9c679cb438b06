"""The quickstarts do what they say: each command runs, in order, and answers as the page shows.

Blocks of `sh` are run; those of `bash` want a cluster, and are only read by the other tests of docs.
What installs is left out: it is done already.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from envoy_process import ENVOY_BINARY
from ports import a_port

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "quickstart").glob("*.md"))
ENGINES_RUN_ALREADY = ("vllm", "envoy")
PORTS = ("8000", "8001", "8080", "9002", "9090", "9901")
INSTALLS = re.compile(r"^(python3 -m venv|pip install|cd |git clone)")
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)
END = "=== end of block"

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


class Machine:
    """A folder, free ports in place of those that pages name, and our commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        first = a_port()
        while not free(first + 1):
            first = a_port()
        self.ports = dict(
            zip(PORTS, (first, first + 1, *(a_port() for _ in PORTS[2:])), strict=True)
        )
        self._programs()

    def _programs(self) -> None:
        programs = self.folder / "bin"
        programs.mkdir()
        ours = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lodestar_extproc "$@"\n'
        for name, text in (
            ("lodestar-extproc", ours),
            ("envoy", f'#!/bin/sh\nexec {ENVOY_BINARY} "$@" --use-dynamic-base-id\n'),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)

    def own(self, text: str) -> str:
        """*text* with its ports."""
        names = "|".join(PORTS)
        return re.sub(rf"(?<=[:= ])({names})\b", lambda m: str(self.ports[m[1]]), text)

    @property
    def environment(self) -> dict[str, str]:
        admin = f"127.0.0.1:{self.ports['9090']}"
        root = str(DOCS.parent)
        return os.environ | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}",
            "COLUMNS": "120",
            "LODESTAR_INIT_PORT": str(self.ports["8080"]),
            "LODESTAR_INIT_ADMIN_PORT": str(self.ports["9901"]),
            "LODESTAR_INIT_LODESTAR_PORT": str(self.ports["9002"]),
            "LODESTAR_SERVE_ADMIN": admin,
            "LODESTAR_EXPLAIN_ADMIN": f"http://{admin}",
        }

    def run(self, script: str) -> list[str]:
        """What each block wrote."""
        with self.started(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            told = ""
            for line in process.stdout:
                told += line
                if line == "=== done\n":
                    break
            else:
                logs = [p.read_text()[-1500:] for p in self.folder.glob("background*.log")]
                pytest.fail(f"a command failed:\n{told}\n{logs}")
        return told.split(END)

    @contextmanager
    def started(self, script: str, **pipes):
        process = subprocess.Popen(
            ("bash", "-ec", script),
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
            text=True,
            **pipes,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
            if process.stdout is not None:
                process.stdout.close()


def free(port: int) -> bool:
    import socket  # noqa: PLC0415

    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def commands(block: str, number: int) -> str:
    kept = "\n".join(line for line in block.splitlines() if not INSTALLS.match(line))
    # What goes on beside writes elsewhere.
    kept = re.sub(r" &$", f" > background{number}_$RANDOM.log 2>&1 &", kept, flags=re.MULTILINE)
    return f"{kept}\necho; echo '{END}'\n"


def wanted(block: str) -> re.Pattern[str]:
    lines = [
        r"[\s\S]*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*")
        for line in block.rstrip().splitlines()
    ]
    return re.compile("^" + "\n".join(lines), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_quickstart_does_what_the_page_shows(page, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    machine = Machine(tmp_path)
    blocks = [(kind, machine.own(text)) for kind, text in BLOCK.findall(page.read_text())]
    scripts = [text for kind, text in blocks if kind == "sh"]
    script = "".join(commands(text, number) for number, text in enumerate(scripts))
    with ExitStack() as stack:
        if page.stem in ENGINES_RUN_ALREADY:
            engines = "exec lodestar-extproc simulate --instances h100:1,l20:1 --port 8000"
            stack.enter_context(machine.started(machine.own(engines), stdout=subprocess.DEVNULL))
            up = "curl --retry 60 --retry-delay 1 --retry-all-errors -fsS localhost:8001/health"
            script = f"{machine.own(up)}\n{script}"
        told = machine.run(script + "echo '=== done'\n")

    number = -1
    for kind, text in blocks:
        number += kind == "sh"
        if kind == "text":
            assert wanted(text).search(told[number]), f"{text}\nis not in\n{told[number]}"


def test_every_starting_point_has_a_page_with_commands_that_run():
    assert [page.stem for page in PAGES] == ["envoy", "gateway", "istio", "nothing", "vllm"]
    for page in PAGES:
        assert any(kind == "sh" for kind, _ in BLOCK.findall(page.read_text()))
