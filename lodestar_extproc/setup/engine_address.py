"""EngineAddress: where an engine is, as people write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from urllib.parse import urlsplit

PORTS: Mapping[str, int] = MappingProxyType({"http": 80, "https": 443})


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Scheme, host and port.

    Attributes:
        host: an IP address, or a name that DNS resolves.
    """

    scheme: str
    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def host_and_port(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host_and_port}"


def read_engine_address(written: str) -> EngineAddress:
    """`10.0.0.7:8000`, `http://vllm-0:8000`, `https://engine.example`, `[fd00::7]:8000`.

    Raises:
        ValueError: it is no such address; says what is wrong.

    >>> read_engine_address("localhost:8000").host_and_port
    '127.0.0.1:8000'
    >>> read_engine_address("https://engine.example/v1").url
    'https://engine.example:443'
    """
    parts = urlsplit(written if "://" in written else f"http://{written}")
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"{written} is no engine's address, such as 10.0.0.7:8000")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{written}: {error}") from error
    if port is None and "://" not in written:
        raise ValueError(f"{written} has no port: write {written}:8000")
    # Envoy would take both families of "localhost", and engines listen on the first.
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return EngineAddress(parts.scheme, host, port or PORTS[parts.scheme])
