"""Where Envoy will look for us, and for other replicas, by the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from lodestar_extproc.config import Config, EnvoyConfig, PickerConfig

PICKER_ADDRESS = "[::]:9002"
"""Where gateways expect an endpoint picker."""


def replica_places(config: Config, peers: Sequence[str]) -> tuple[str, ...]:
    """Where Envoy may find us, or another replica; *peers* are told beside."""
    named = config.replica_addresses if isinstance(config, EnvoyConfig) else ()
    return tuple(dict.fromkeys((*named, *peers)))


def listen_addresses(config: Config) -> tuple[str, ...]:
    """Where Envoy will look for us, made into addresses to bind.

    A loopback or wildcard address, or a socket's path, is taken as it stands; for any other host,
    which is ours as seen by Envoy, all interfaces are bound.

    Raises:
        ValueError: the configuration does not say.
    """
    if isinstance(config, PickerConfig):
        return (PICKER_ADDRESS,)
    named = dict.fromkeys(a for a in (config.extproc_address, config.access_log_address) if a)
    if not named:
        raise ValueError(
            f"{config.path}: {config.own_service.problem}"
            if config.own_service.problem
            else f"{config.path} does not say where the ext_proc service is; use --listen, for "
            "example --listen 0.0.0.0:9002"
        )
    return tuple(dict.fromkeys(_bindable(address) for address in named))


def _bindable(address: str) -> str:
    host, _, port = address.rpartition(":")
    if address.startswith("unix") or host in ("127.0.0.1", "[::1]", "localhost", "0.0.0.0"):  # noqa: S104
        return address
    return f"0.0.0.0:{port}"
