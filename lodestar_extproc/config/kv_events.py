"""KvEvents: the setting that says where engines tell of their prefix caches."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from lodestar_extproc.config.mapped import MappedSetting
from lodestar_extproc.config.scalars import number
from lodestar_extproc.kv_events_source import KvEventsSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lodestar_extproc.config.endpoint_settings import EndpointSettings

VLLM_PORT = 5557
"""Of its `--kv-events-config`, `endpoint`, where that says nothing else."""
HIGHEST_PORT = 65535  # of TCP
_KEYS = ("port", "replay_port", "topic")


@dataclass(frozen=True, slots=True)
class KvEvents(MappedSetting):
    """Ports at every engine, which an endpoint's own settings may change.

    Attributes:
        replay_port: where what was missed is asked for; None where an engine keeps nothing.
        n_written: keys in the file.
    """

    TAKES = "a mapping of `port`, `replay_port` and `topic`"
    port: int = VLLM_PORT
    replay_port: int | None = None
    topic: str = ""
    n_written: int = 0

    @classmethod
    def read(cls, written: Mapping[str, object]) -> Self:
        unknown = [key for key in written if key not in _KEYS]
        if unknown:
            raise ValueError(f"{unknown[0]} is none of {', '.join(_KEYS)}")
        topic = written.get("topic") or ""
        if not isinstance(topic, str):
            raise ValueError("topic is no text")  # noqa: TRY004  (of a file, not of a program)
        port, replay = written.get("port", VLLM_PORT), written.get("replay_port")
        replay_port = None if replay is None else _port("replay_port", replay)
        return cls(_port("port", port), replay_port, topic, len(written))

    def __len__(self) -> int:
        return self.n_written


def _port(name: str, written: object) -> int:
    port = number(written)
    if port is None or not port.is_integer() or not 1 <= port <= HIGHEST_PORT:
        raise ValueError(f"{name} is no whole number from 1 to {HIGHEST_PORT}")
    return int(port)


def kv_events_source(
    ip: str, endpoint: EndpointSettings, pool: KvEvents | None
) -> KvEventsSource | None:
    """Where the endpoint at *ip* tells of its cache; None where the pool does not listen."""
    if pool is None or not endpoint.prefix_caching:
        return None
    replay_port = endpoint.kv_events_replay_port or pool.replay_port
    return KvEventsSource(
        _url(ip, endpoint.kv_events_port or pool.port),
        None if replay_port is None else _url(ip, replay_port),
        pool.topic,
    )


def _url(ip: str, port: int) -> str:
    address = ip_address(ip)
    host = f"[{address.compressed}]" if address.version == 6 else str(address)
    return f"tcp://{host}:{port}"
