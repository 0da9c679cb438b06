"""new_transport(): what carries calls, by its name."""

from __future__ import annotations

from lodestar_extproc.transport.calls import CallTransport

ASYNCIO, GRPCIO = "asyncio", "grpcio"
TRANSPORTS = (ASYNCIO, GRPCIO)
DEFAULT_TRANSPORT = ASYNCIO
"""Half of the CPU a request, and memory that does not grow with calls (decision 0041)."""


def new_transport(name: str = DEFAULT_TRANSPORT) -> CallTransport:
    """Of `TRANSPORTS`.

    Raises:
        ValueError: there is none of that name.
    """
    # Each is loaded where it is wanted: commands read the names above before anything is served.
    if name == ASYNCIO:
        from lodestar_extproc.transport.asyncio_transport import AsyncioTransport  # noqa: PLC0415

        return AsyncioTransport()
    if name == GRPCIO:
        from lodestar_extproc.transport.grpcio_transport import GrpcioTransport  # noqa: PLC0415

        return GrpcioTransport()
    raise ValueError(f"no transport {name!r}: there are {', '.join(TRANSPORTS)}")
