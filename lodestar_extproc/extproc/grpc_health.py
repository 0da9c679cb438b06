"""HealthServicer: answers `grpc.health.v1` on the event loop that decides, so a stall shows.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListResponse,
)
from lodestar_extproc.names import EXT_PROC_SERVICE, HEALTH_SERVICE
from lodestar_extproc.transport.calls import (
    Call,
    CallRefused,
    OpenCall,
    Services,
    Status,
    UnaryHandler,
)

LIVENESS = "liveness"
"""The service name that is answered SERVING as long as the process answers at all."""
_READY_SERVICES = ("", "readiness", EXT_PROC_SERVICE, "inference-extension")
"""Manifests of the Gateway API's own endpoint pickers ask for the last one."""
_SERVICES = (*_READY_SERVICES, LIVENESS)


class HealthServicer:
    """Tells whether Envoy may send requests here; the owner of that state."""

    def __init__(self) -> None:
        self._serving = False
        self._watching: set[WatchCall] = set()

    @property
    def services(self) -> Services:
        """What is asked, by path."""
        opened: dict[str, OpenCall] = {
            "Check": lambda call: UnaryHandler(call, self._check),
            "Watch": self._watch,
            "List": lambda call: UnaryHandler(call, self._list),
        }
        return {f"/{HEALTH_SERVICE}/{name}": each for name, each in opened.items()}

    def set_serving(self, *, serving: bool) -> None:
        """Answer so from now on, and tell watchers at once."""
        self._serving = serving
        for call in tuple(self._watching):
            call.tell()

    def end(self) -> None:
        """Answer NOT_SERVING from now on, and end the watchers' streams."""
        self.set_serving(serving=False)
        for call in tuple(self._watching):
            call.end()

    def status(self, service: str) -> HealthCheckResponse.ServingStatus:
        if service == LIVENESS:
            return HealthCheckResponse.SERVING
        if service not in _READY_SERVICES:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    def _check(self, asked: bytes) -> bytes:
        service = _service_in(asked)
        status = self.status(service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            raise CallRefused(Status.NOT_FOUND, f"no service {service!r} here")
        return _bytes_of(HealthCheckResponse(status=status))

    def _watch(self, call: Call) -> WatchCall:
        opened = WatchCall(call, self.status, self._watching.discard)
        self._watching.add(opened)
        return opened

    def _list(self, _asked: bytes) -> bytes:
        statuses = {s: HealthCheckResponse(status=self.status(s)) for s in _SERVICES}
        return _bytes_of(HealthListResponse(statuses=statuses))


class WatchCall:
    """A client that is told of a service's status, and of each change of it.

    Args:
        status: of a service, now.
        closed: told once the call is over.
    """

    def __init__(
        self,
        call: Call,
        status: Callable[[str], HealthCheckResponse.ServingStatus],
        closed: Callable[[WatchCall], None],
    ) -> None:
        self._call = call
        self._status = status
        self._closed = closed
        self._service: str | None = None
        self._told: HealthCheckResponse.ServingStatus | None = None

    def received(self, message: bytes) -> None:
        try:
            self._service = _service_in(message)
        except CallRefused as refused:
            self._call.end(refused.status, str(refused))
        self.tell()

    def half_closed(self) -> None:
        """It goes on listening, if it has said to what."""
        if self._service is None:
            self._call.end(Status.INTERNAL, "the call ended without a message")

    def closed(self, _n_sent: int) -> None:
        self._closed(self)

    def tell(self) -> None:
        """Send the status, if it is another than was told."""
        if self._service is None:
            return
        status = self._status(self._service)
        if status != self._told:
            self._told = status
            self._call.send(_bytes_of(HealthCheckResponse(status=status)))

    def end(self) -> None:
        """There is nothing more to tell."""
        self._call.end()


def _service_in(asked: bytes) -> str:
    """The name that a request asks for.

    Raises:
        CallRefused: it is none.
    """
    try:
        return str(HealthCheckRequest.FromString(asked).service)
    except DecodeError:
        raise CallRefused(Status.INTERNAL, "bytes that are no health check") from None


def _bytes_of(reply: HealthCheckResponse | HealthListResponse) -> bytes:
    data: bytes = reply.SerializeToString()
    return data
