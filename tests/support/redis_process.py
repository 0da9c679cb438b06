"""Real stores: redis-server or valkey-server, on free ports, with nothing kept."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from child_process import ChildProcess
from ports import a_port
from waiting import until

FETCHED = Path(__file__).parents[2] / ".tools" / "valkey"
"""Where `make tools` puts a Valkey."""
VALKEY = shutil.which("valkey-server") or next(map(str, FETCHED.rglob("valkey-server")), None)
REDIS = shutil.which("redis-server") or VALKEY
needs_redis = pytest.mark.skipif(
    REDIS is None, reason="no Redis: apt-get install redis-server (make tools)"
)


needs_valkey = pytest.mark.skipif(VALKEY is None, reason="no Valkey: make tools")


class RedisProcess(ChildProcess):
    """It can be killed, frozen and started again at the same port.

    Args:
        options: of its command line.
        binary: that serves.
        name: of its log, where there are several.
    """

    def __init__(
        self, folder: Path, *options: str, binary: str | None = REDIS, name: str = "redis"
    ) -> None:
        self.port = a_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"redis://{self.address}"
        command = [
            str(binary),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            *options,
        ]
        super().__init__(name, command, folder)

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


class SentinelProcess(ChildProcess):
    """One sentinel that watches *master* under the name `main`, and needs no other to agree."""

    def __init__(self, folder: Path, master: RedisProcess) -> None:
        self.port = a_port()
        file = folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds main 500\n"
            "sentinel failover-timeout main 3000\n"
        )
        super().__init__("sentinel", [str(REDIS), str(file), "--sentinel"], folder)
