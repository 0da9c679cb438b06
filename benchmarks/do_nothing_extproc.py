"""An ext_proc service that answers what Lodestar answers, and does nothing else.

On decision streams it continues, names a fixed pick and ends the stream; observing streams it ends
after the first chunk; access logs it takes in. It is the floor that grpc.aio sets: what Lodestar
costs more, its deciding and learning cost. Run by `extproc_cost.py`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from lodestar_extproc import names
from lodestar_extproc.extproc.grpc_health import HealthServicer
from lodestar_extproc.generated.lodestar.v1.envoy_pb2 import (
    HeaderValueOption,
    ProcessingRequest,
    ProcessingResponse,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)
from lodestar_extproc.transport.grpcio_transport import OPTIONS, OWN_PORT, ServiceHandlers


def continue_headers() -> bytes:
    reply = ProcessingResponse()
    reply.request_headers.response.SetInParent()
    return bytes(reply.SerializeToString())


def choose(pick: str) -> bytes:
    reply = ProcessingResponse()
    mutation = reply.request_body.response.header_mutation
    option = mutation.set_headers.add(append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
    option.header.key = names.DESTINATION.encode()
    option.header.raw_value = pick.encode()
    choice = reply.dynamic_metadata.fields[names.METADATA_NAMESPACE].struct_value.fields
    choice[names.DESTINATION].string_value = pick
    choice[names.DECISION_ID].string_value = "engines.0123456789abcdef"
    return bytes(reply.SerializeToString())


class DoNothing:
    def __init__(self, pick: str) -> None:
        self._replies = {"request_headers": continue_headers(), "request_body": choose(pick)}

    async def process(self, messages: AsyncIterator[bytes], context: Any) -> None:
        async for data in messages:
            name = ProcessingRequest.FromString(data).WhichOneof("request")
            if name not in self._replies:
                return
            await context.write(self._replies[name])
            if name == "request_body":
                return

    async def log(
        self, messages: AsyncIterator[StreamAccessLogsMessage], _context: object
    ) -> StreamAccessLogsResponse:
        async for _ in messages:
            pass
        return StreamAccessLogsResponse()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        logs = grpc.stream_unary_rpc_method_handler(
            self.log,
            request_deserializer=StreamAccessLogsMessage.FromString,
            response_serializer=StreamAccessLogsResponse.SerializeToString,
        )
        handlers = (
            (names.PROCESS_METHOD, grpc.stream_stream_rpc_method_handler(self.process)),
            (names.ACCESS_LOG_METHOD, logs),
        )
        return tuple(
            grpc.method_handlers_generic_handler(
                method.split("/")[1], {method.split("/")[2]: handler}
            )
            for method, handler in handlers
        )


async def main(address: str, pick: str) -> None:
    server = grpc.aio.server(options=(*OPTIONS, *OWN_PORT))
    health = HealthServicer()
    server.add_generic_rpc_handlers((*DoNothing(pick).handlers(), ServiceHandlers(health.services)))
    server.add_insecure_port(address)
    await server.start()
    health.set_serving(serving=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    health.end()
    await server.stop(0.2)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
