"""Where Envoy will look for us, and for other replicas, by the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from lodestar_extproc.config import Config, EnvoyConfig, PickerConfig
from lodestar_extproc.config.share import is_local
from lodestar_extproc.service.worker import WorkerPlace, dealt

PICKER_ADDRESS = "[::]:9002"
"""Where gateways expect an endpoint picker."""


def replica_places(
    config: Config, peers: Sequence[str], place: WorkerPlace | None = None
) -> tuple[str, ...]:
    """Where Envoy may find us, or another replica; *peers* are told beside.

    Workers have sockets of their own: a port that they share answers for any of them.
    """
    named = config.replica_addresses if isinstance(config, EnvoyConfig) else ()
    workers = () if place is None else place.sockets
    return tuple(dict.fromkeys((*workers, *named, *peers)))


def replica_addresses_here(config: Config) -> tuple[str, ...]:
    """Those of Envoy's cluster for us, where all of them are of this machine."""
    named = config.replica_addresses if isinstance(config, EnvoyConfig) else ()
    return named if all(map(is_local, named)) else ()


def all_addresses(config: Config, listen: Sequence[str], n_workers: int) -> tuple[str, ...]:
    """Where *n_workers* listen, together or each at one of them (`dealt`).

    Args:
        listen: addresses instead of the configuration's.

    Raises:
        ValueError: the configuration does not say, or they cannot be shared.
    """
    here = replica_addresses_here(config)
    named = tuple(listen) or (here if dealt(here, n_workers) else listen_addresses(config))
    files = [address for address in named if address.startswith("unix")]
    if files and n_workers > 1 and not dealt(named, n_workers):
        raise ValueError(
            f"{files[0]}: workers cannot share the file of a socket; name {n_workers} of them in "
            "Envoy's cluster for this service, or by --listen, or name a port"
        )
    return named


def own_addresses(addresses: Sequence[str], place: WorkerPlace | None) -> tuple[str, ...]:
    """Of *addresses*, where this worker listens."""
    if place is None or not dealt(addresses, place.n_workers):
        return tuple(addresses)
    return (addresses[place.number],)


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
    if is_local(address) or address.startswith("0.0.0.0:"):
        return address
    return f"0.0.0.0:{address.rpartition(':')[2]}"
