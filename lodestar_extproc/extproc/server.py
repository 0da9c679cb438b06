"""ExtProcServer: ext_proc streams, and beside them the access log and health, on one gRPC port.

What a call means is told by the services; how it is carried, by the transport.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import MappingProxyType

from lodestar_extproc import names
from lodestar_extproc.extproc.access_log_service import AccessLogService
from lodestar_extproc.extproc.body_reader import BodyReader
from lodestar_extproc.extproc.error_boundary import ErrorBoundary
from lodestar_extproc.extproc.grpc_health import HealthServicer
from lodestar_extproc.extproc.heard_ends import HeardEnds, OtherReplicas
from lodestar_extproc.extproc.pools import PoolRouters
from lodestar_extproc.extproc.process_call import ProcessService
from lodestar_extproc.extproc.reader_process import ReaderProcess
from lodestar_extproc.extproc.stream_listener import StreamListener
from lodestar_extproc.extproc.traced_stream import Traces
from lodestar_extproc.extproc.turns import Turns
from lodestar_extproc.server_tls import ServerTls
from lodestar_extproc.transport.calls import CallTransport, Services

NOTHING: Services = MappingProxyType({})


class ExtProcServer:
    """Serves Envoy.

    Args:
        transport: what carries the calls.
        access_log: Envoy is configured to send its access log here.
        origin: begins the ids of streams (`routing/ids.py`).
        traces: of requests; None for none.
        others: who may have decided on what is heard of here; None for nobody.
        clock: monotonic seconds.

    Attributes:
        reader: reads long bodies while somebody lets it run.
        ends: takes the ends of requests that were decided on here.
    """

    def __init__(
        self,
        routers: PoolRouters,
        listener: StreamListener,
        *,
        transport: CallTransport,
        access_log: bool = True,
        origin: str = "",
        traces: Traces | None = None,
        others: OtherReplicas | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._health = HealthServicer()
        boundary = ErrorBoundary(listener)
        heard = HeardEnds(routers.complete, others)
        self.ends = heard.ours
        self._logs = AccessLogService(heard.end, listener, boundary, clock)
        self.reader = ReaderProcess(clock=clock)
        self._turns = Turns(clock)
        self._process = ProcessService(
            routers=routers,
            listener=listener,
            boundary=boundary,
            heard=heard,
            bodies=BodyReader(self.reader, clock),
            turns=self._turns,
            access_log=access_log,
            origin=origin,
            traces=traces,
            clock=clock,
        )

    async def start(
        self,
        addresses: Sequence[str],
        *,
        tls: ServerTls | None = None,
        health_addresses: Sequence[str] = (),
        beside: Services = NOTHING,
        beside_addresses: Sequence[str] = (),
        shared_ports: bool = False,
        serving: bool = True,
    ) -> tuple[int, ...]:
        """Listen on each `host:port` or `unix:/path`; the ports bound, for port 0 the one given.

        Args:
            tls: how to encrypt the way to *addresses*; None for plain text.
            health_addresses: where health alone is told, as probes ask it: not encrypted.
            beside: what else is served on *addresses*.
            beside_addresses: where that alone is served, not encrypted: between processes of one
                machine.
            shared_ports: other processes of ours listen there, too: the kernel gives each its
                share of the connections.
            serving: what health is told from now on.

        Raises:
            ListenError: an address cannot be bound.
            CertificateError: there is no certificate to serve with.
        """
        health = self._health.services
        ours: Services = {
            names.PROCESS_METHOD: self._process.open,
            names.ACCESS_LOG_METHOD: self._logs.open,
        }
        listen, everything = self._transport.listen, {**ours, **health, **beside}
        ports = (
            *await listen(addresses, everything, tls, shared=shared_ports),
            *await listen(health_addresses, health, shared=shared_ports),
        )
        await listen(beside_addresses, beside)
        self.set_serving(serving=serving)
        return ports

    def set_serving(self, *, serving: bool) -> None:
        """What health checks are told; streams are served either way."""
        self._health.set_serving(serving=serving)

    async def stop(self, grace_s: float) -> None:
        """Fail health checks, take no new streams, and let open ones end for *grace_s*.

        To let Envoy go elsewhere before, stop serving and wait for its health checks.
        """
        self._health.end()
        self._turns.let_all_go()
        self._logs.end()
        self.ends.flush()
        await self._transport.stop(grace_s)
