"""new_transport(): what carries calls, by its name."""

from __future__ import annotations

from lodestar_extproc.transport.calls import CallTransport
from lodestar_extproc.transport.grpcio_transport import GrpcioTransport

GRPCIO, ASYNCIO = "grpcio", "asyncio"
TRANSPORTS = (GRPCIO, ASYNCIO)


def new_transport(name: str = GRPCIO) -> CallTransport:
    """Of `TRANSPORTS`.

    Raises:
        ValueError: there is none of that name, or a library for it is not installed.
    """
    if name == GRPCIO:
        return GrpcioTransport()
    if name != ASYNCIO:
        raise ValueError(f"no transport {name!r}: there are {', '.join(TRANSPORTS)}")
    try:
        from lodestar_extproc.transport.asyncio_transport import (  # noqa: PLC0415  (an extra)
            AsyncioTransport,
        )
    except ImportError as error:
        raise ValueError(
            f"the transport {ASYNCIO} needs more: pip install 'lodestar-extproc[asyncio]' ({error})"
        ) from None
    return AsyncioTransport()
