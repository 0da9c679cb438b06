"""GrpcioTransport: calls carried by grpcio, gRPC's own library."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from lodestar_extproc.server_tls import CertificateFiles, ServedPair, ServerTls
from lodestar_extproc.transport.calls import (
    MAX_CONCURRENT_STREAMS,
    MAX_MESSAGE_BYTES,
    SHARED_AGE_S,
    ListenError,
    Services,
)
from lodestar_extproc.transport.grpcio_call import serving

OPTIONS = (
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # HTTP/2's 16 KiB and gRPC's 64 KiB would cut every large body into many pieces.
    ("grpc.http2.max_frame_size", 2**20),
    ("grpc.http2.lookahead_bytes", 2**20),
    # A mesh may ping as often as it likes.
    ("grpc.http2.max_ping_strikes", 0),
)
# A second process on the same port would get a random share of the connections.
OWN_PORT = (("grpc.so_reuseport", 0),)
SHARED_PORT = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_connection_age_ms", round(1e3 * SHARED_AGE_S)),
)


class GrpcioTransport:
    """Owns the grpcio servers of this process."""

    def __init__(self) -> None:
        self._servers: list[Any] = []

    async def listen(
        self,
        addresses: Sequence[str],
        services: Services,
        tls: ServerTls | None = None,
        *,
        shared: bool = False,
    ) -> tuple[int, ...]:
        """As of `CallTransport`."""
        if not addresses:
            return ()
        trusted = None if tls is None else credentials(tls)
        server = grpc.aio.server(options=(*OPTIONS, *(SHARED_PORT if shared else OWN_PORT)))
        server.add_generic_rpc_handlers((ServiceHandlers(services),))
        ports = tuple(_bind(server, address, trusted) for address in addresses)
        await server.start()
        self._servers.append(server)
        return ports

    async def stop(self, grace_s: float) -> None:
        """As of `CallTransport`."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


class ServiceHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Services as grpcio asks for them. All take and give bytes, in streams of any length."""

    def __init__(self, services: Services) -> None:
        self._handlers = {
            path: grpc.stream_stream_rpc_method_handler(serving(opened))
            for path, opened in services.items()
        }

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler | None:
        """None for a method that is not served here."""
        return self._handlers.get(handler_call_details.method)


def credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """For a server to listen with; gRPC asks for the files again at each new connection.

    Raises:
        CertificateError: the files are missing or do not belong together, or there is no library to
            make a certificate with.
    """
    files = CertificateFiles(tls)

    def latest() -> grpc.ServerCertificateConfiguration | None:
        found = files.latest()
        return None if found is None else _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.read()),
        latest,
        require_client_authentication=tls.client_ca is not None,
    )


def _configuration(served: ServedPair) -> grpc.ServerCertificateConfiguration:
    pairs = [(served.key, served.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, served.client_ca or None)


def _bind(server: Any, address: str, trusted: grpc.ServerCredentials | None) -> int:
    try:
        if trusted is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, trusted))
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {address}; is it in use?") from error
