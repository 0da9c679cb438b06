"""Processes: starts the programs of the demo and leaves none behind."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

STOP_TIMEOUT_S = 5.0
"""Each ends within a second of SIGTERM; then it is killed."""
READY_TIMEOUT_S = 60.0
"""The first start of a simulated engine compiles it."""

_LINE = re.compile(r"^(\S+)$", re.MULTILINE)


class DemoError(RuntimeError):
    """A program of the demo cannot do its part; the message says what to do."""


class Processes:
    """Programs with their output in files; ends every one of them, whatever happens.

    Args:
        folder: for their output.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, command: Sequence[str]) -> int:
        """Run *command*, its output in `name.log`; the process's id."""
        with self.log_of(name).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  (our own commands)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us: we end the others in order.
                start_new_session=True,
            )
        self._running.append((name, process))
        return process.pid

    def log_of(self, name: str) -> Path:
        """Where the output of *name* goes."""
        return self._folder / f"{name}.log"

    async def said(self, name: str, pattern: re.Pattern[str], times: int = 1) -> list[str]:
        """Wait until *name* has printed what matches *pattern* so many times; the groups.

        Raises:
            DemoError: it did not in time, or a program ended.
        """
        return await self._found(name, self.log_of(name), pattern, times)

    async def written(self, name: str, path: Path) -> list[str]:
        """Wait until *name* has written *path*; its lines.

        Raises:
            DemoError: it did not in time, or a program ended.
        """
        return await self._found(name, path, _LINE, 1)

    async def _found(
        self, name: str, path: Path, pattern: re.Pattern[str], times: int
    ) -> list[str]:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while True:
                    found = pattern.findall(_text(path))
                    if len(found) >= times:
                        return found
                    self.check()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise DemoError(f"{name} did not start in time; see {self._folder}") from None

    async def ready(self, session: aiohttp.ClientSession, url: str) -> None:
        """Wait until *url* answers 200.

        Raises:
            DemoError: it did not in time, or a program ended.
        """
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await _answers(session, url):
                    self.check()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise DemoError(f"{url} did not answer; see {self._folder}") from None

    def check(self) -> None:
        """All programs run.

        Raises:
            DemoError: one has ended.
        """
        for name, process in self._running:
            if process.poll() is not None:
                last = self.log_of(name).read_text(errors="replace").strip()[-2000:]
                raise DemoError(f"{name} ended with {process.returncode}:\n{last}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for _, process in reversed(self._running):
            process.terminate()
        for _, process in reversed(self._running):
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=1.0)) as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def free_ports(n: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    try:
        return [s.getsockname()[1] for s in sockets]
    finally:
        for each in sockets:
            each.close()


def beside_python(program: str) -> str:
    """The path of *program*, from this environment rather than from elsewhere.

    Raises:
        DemoError: it is not installed.
    """
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise DemoError(f"{program} is not installed: pip install 'lodestar-extproc[demo]'")
    return found
