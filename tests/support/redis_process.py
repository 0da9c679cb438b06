"""A real redis-server, on a free port, with nothing written to disk."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from child_process import ChildProcess
from ports import a_port
from waiting import until

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis = pytest.mark.skipif(
    REDIS is None, reason="no Redis: apt-get install redis-server (make tools)"
)


class RedisProcess(ChildProcess):
    """It can be killed, frozen and started again at the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = a_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"redis://{self.address}"
        command = [
            str(REDIS),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            *options,
        ]
        super().__init__("redis", command, folder)

    async def ready(self) -> None:
        await until(self._answers)

    def _answers(self) -> bool:
        self.check_alive()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return bool(connection.recv(64))
        except OSError:
            return False

    def ask(self, *words: str) -> bytes:
        """What it answers to one command."""
        text = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as connection:
            connection.sendall(f"*{len(words)}\r\n{text}".encode())
            return connection.recv(65536)
