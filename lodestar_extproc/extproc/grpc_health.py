"""HealthServicer: answers `grpc.health.v1` on the event loop that decides, so a stall shows.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from lodestar_extproc.names import EXT_PROC_SERVICE, HEALTH_SERVICE

LIVENESS = "liveness"
"""The service name that is answered SERVING as long as the process answers at all."""
_READY_SERVICES = ("", "readiness", EXT_PROC_SERVICE, "inference-extension")
"""Manifests of the Gateway API's own endpoint pickers ask for the last one."""
_SERVICES = (*_READY_SERVICES, LIVENESS)


class HealthServicer:
    """Tells whether Envoy may send requests here; the owner of that state."""

    def __init__(self) -> None:
        self._serving = False
        self._ended = False
        self._changed = asyncio.Event()

    def set_serving(self, *, serving: bool) -> None:
        """Answer so from now on, and tell watchers at once."""
        self._serving = serving
        self._wake()

    def end(self) -> None:
        """Answer NOT_SERVING from now on, and end the watchers' streams."""
        self._ended = True
        self.set_serving(serving=False)

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler, for a server to add."""
        return grpc.method_handlers_generic_handler(
            HEALTH_SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    self._check,
                    request_deserializer=HealthCheckRequest.FromString,
                    response_serializer=HealthCheckResponse.SerializeToString,
                ),
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self._watch,
                    request_deserializer=HealthCheckRequest.FromString,
                    response_serializer=HealthCheckResponse.SerializeToString,
                ),
                "List": grpc.unary_unary_rpc_method_handler(
                    self._list,
                    request_deserializer=HealthListRequest.FromString,
                    response_serializer=HealthListResponse.SerializeToString,
                ),
            },
        )

    def _status(self, service: str) -> HealthCheckResponse.ServingStatus:
        if service == LIVENESS:
            return HealthCheckResponse.SERVING
        if service not in _READY_SERVICES:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:
        status = self._status(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return HealthCheckResponse(status=status)

    async def _watch(
        self, request: HealthCheckRequest, _context: object
    ) -> AsyncIterator[HealthCheckResponse]:
        told = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != told:
                yield HealthCheckResponse(status=status)
                told = status
            if self._ended:
                return
            await changed.wait()

    async def _list(self, _request: HealthListRequest, _context: object) -> HealthListResponse:
        statuses = {s: HealthCheckResponse(status=self._status(s)) for s in _SERVICES}
        return HealthListResponse(statuses=statuses)
