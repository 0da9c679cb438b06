"""One process under a test's hands: killed, frozen, thawed, stopped and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

STOP_TIMEOUT_S = 60.0
LOG_CHARACTERS = 100_000
"""Of its end, what is read of a log: a busy machine makes a service say more than usual."""


class ChildProcess:
    """`with ChildProcess(...)` starts it, and leaves none behind.

    Attributes:
        environment: what it is told beside ours, from its next start on.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.command = command
        self.environment: dict[str, str] = {}
        self._log_file = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=os.environ | self.environment
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """By SIGKILL; on return its sockets are closed."""
        self._send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    async def terminate(self) -> int:
        """By SIGTERM; the exit status."""
        self._send(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """The exit status, once it has ended by itself."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)

    def check_alive(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"ended with {code}:\n{self.log()}"

    def log(self) -> str:
        return self._log_file.read_text(errors="replace")[-LOG_CHARACTERS:]

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
