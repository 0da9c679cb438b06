"""The gRPC port itself: whole streams, garbage, health, addresses, stopping."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from envoy_json import add_metadata
from extproc_fakes import FakeRouters, RecordingListener
from lodestar_extproc import names
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb
from lodestar_extproc.transport.calls import ListenError
from lodestar_extproc.transport.grpcio_call import serving
from transports import a_transport, each_transport

pytestmark = pytest.mark.usefixtures(each_transport.__name__)
CHAT = json.dumps({"model": "m", "messages": []}).encode()


def request_headers(**more) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(**more)
    for key, value in ((":method", "POST"), (":path", "/v1/chat/completions")):
        message.request_headers.headers.headers.add(key=key.encode(), raw_value=value.encode())
    return message


def request_body(data: bytes = CHAT, **more) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=True), **more)


def answer(data: bytes, decision_id: str = "pool.1") -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(response_body=pb.HttpBody(body=data), observability_mode=True)
    add_metadata(message, names.METADATA_NAMESPACE, {names.DECISION_ID: decision_id})
    return message


@asynccontextmanager
async def running(routers=None, address="127.0.0.1:0", **options):
    routers, listener = routers or FakeRouters(), RecordingListener()
    server = ExtProcServer(routers, listener, transport=a_transport(), **options)
    (port,) = await server.start([address])
    target = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            yield server, channel, routers, listener
        finally:
            await server.stop(0.0)


def process(channel):
    return channel.stream_stream(
        names.PROCESS_METHOD, response_deserializer=pb.ProcessingResponse.FromString
    )


async def replies_to(channel, *messages) -> list[pb.ProcessingResponse]:
    """All replies to a stream of *messages*, protobuf or bytes, until either side ends it."""
    call = process(channel)()
    # Where the server ends the stream first, a client's write fails.
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in messages:
            await call.write(message if isinstance(message, bytes) else message.SerializeToString())
        await call.done_writing()
    replies = []
    with suppress(grpc.aio.AioRpcError):
        while (reply := await call.read()) is not grpc.aio.EOF:
            replies.append(reply)
    return replies


async def health(channel, service="", method="Check"):
    call = channel.unary_unary(
        f"/grpc.health.v1.Health/{method}",
        request_serializer=pb.HealthCheckRequest.SerializeToString,
        response_deserializer=pb.HealthCheckResponse.FromString,
    )
    return (await call(pb.HealthCheckRequest(service=service))).status


async def test_a_stream_is_answered_and_ended_by_us():
    async with running() as (_, channel, routers, listener):
        call = process(channel)()
        for message in (request_headers(), request_body()):
            await call.write(message.SerializeToString())
        first, second = await call.read(), await call.read()
        assert first.WhichOneof("response") == "request_headers"
        choice = second.dynamic_metadata.fields[names.METADATA_NAMESPACE].struct_value.fields
        assert choice[names.DESTINATION].string_value == ",".join(routers.addresses)
        # Envoy's half of the stream is still open.
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert listener.heard == [
            ("opened",),
            ("message", "request_headers"),
            ("message", "request_body"),
            ("closed", "chosen"),
        ]


async def test_a_route_that_sends_an_old_key_is_obeyed_and_told_of_once(caplog):
    async with running() as (_, channel, routers, _):
        for _ in range(3):
            call = process(channel)(metadata=(("x-lodestar-objective", "ttft"),))
            await call.write(request_headers().SerializeToString())
            await call.write(request_body().SerializeToString())
            assert await call.read() is not grpc.aio.EOF
            assert await call.read() is not grpc.aio.EOF
            await call.done_writing()

    assert routers.asked == [(None, None, "ttft")] * 3
    assert caplog.text.count("x-lodestar-objective: it is now called x-lodestar-cost") == 1


async def test_a_routes_overrides_come_with_the_stream():
    async with running() as (_, channel, routers, _):
        metadata = ((names.POOL, "pool"), (names.POLICY, "random"), (names.COST, "ttft"))
        call = process(channel)(metadata=metadata)
        for message in (request_headers(), request_body()):
            await call.write(message.SerializeToString())
        await call.read()
        await call.read()
        assert routers.asked == [("pool", "random", "ttft")]


async def test_an_observer_gets_no_reply():
    async with running() as (_, channel, routers, _):
        token = b'data: {"choices":[{"text":"a"}]}\n\n'
        assert await replies_to(channel, answer(b": ping\n\n"), answer(token), answer(token)) == []
        assert [event.decision_id for event in routers.first_tokens] == ["pool.1"]


async def test_a_cut_stream_leaves_nothing_behind():
    async with running(access_log=False) as (_, channel, routers, listener):
        call = process(channel)()
        await call.write(answer(b'data: {"choices":[{"text":"a"}]}\n\n').SerializeToString())
        async with asyncio.timeout(60):
            while not routers.first_tokens:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        call.cancel()
        async with asyncio.timeout(60):
            while ("closed", "observed") not in listener.heard:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [str(c.outcome) for c in routers.completions] == ["client_gone"]
        assert not listener.count("failed", "internal")


@pytest.mark.parametrize(
    "messages",
    [
        [pb.ProcessingRequest()],
        [request_headers(), request_headers()],
        [request_headers(), pb.ProcessingRequest()],
        [request_body(b"held", protocol_config=pb.ProtocolConfiguration(request_body_mode=4))],
    ],
)
async def test_a_breach_of_protocol_ends_the_stream_cleanly(messages):
    async with running() as (_, channel, _, listener):
        await replies_to(channel, *messages)
        assert listener.count("failed", "protocol") == 1
        assert listener.heard[-1] == ("closed", "cut")


async def test_a_bug_of_ours_ends_the_stream_cleanly(caplog):
    async with running(FakeRouters(bug=RuntimeError("a bug"))) as (_, channel, _, listener):
        replies = await replies_to(channel, request_headers(), request_body())
        assert len(replies) == 1
        assert listener.count("failed", "internal") == 1
    assert "a bug" in caplog.text


async def test_a_last_part_sent_twice_is_counted_and_the_answer_still_goes_back():
    both_ways = pb.ProtocolConfiguration(request_body_mode=4, response_body_mode=4)
    token = pb.ProcessingRequest(
        response_body=pb.HttpBody(body=b"data: {}\n\n", end_of_stream=True)
    )
    async with running() as (_, channel, _, listener):
        replies = await replies_to(
            channel,
            request_headers(protocol_config=both_ways),
            request_body(),
            request_body(),
            token,
        )
    parts = [reply.WhichOneof("response") for reply in replies]
    assert parts == ["request_headers", "request_body", "response_body"]
    assert listener.count("repeated", 1) == 1
    assert listener.count("failed", "protocol") == 0


async def test_no_prompt_is_ever_logged(caplog):
    caplog.set_level("DEBUG")
    secret = json.dumps({"model": "m", "messages": [{"role": "user", "content": "s3cr3t"}]})
    async with running() as (_, channel, _, _):
        await replies_to(channel, request_headers(), request_body(secret.encode()))
        await replies_to(channel, request_headers(), request_body(secret[:-1].encode()))
    assert "verdict=chosen" in caplog.text
    assert "s3cr3t" not in caplog.text


async def test_a_wrong_filter_warns_once(caplog):
    async with running() as (_, channel, _, _):
        for _ in range(3):
            await replies_to(channel, request_headers(), request_headers())
    assert caplog.text.count("request headers came while reading") == 1


async def test_5_mb_are_no_problem():
    body = json.dumps({"model": "m", "prompt": "x" * 5_000_000}).encode()
    async with running() as (_, channel, routers, _):
        await replies_to(channel, request_headers(), request_body(body))
        assert routers.routed


def test_any_bytes_leave_the_server_serving():
    """Messages that are no protobuf, and protobuf that is no protocol."""

    @hypothesis_settings(max_examples=60)
    @given(
        st.lists(
            st.binary(max_size=40)
            | st.sampled_from([m.SerializeToString() for m in (request_headers(), request_body())]),
            max_size=4,
        )
    )
    def attack(messages):
        loop.run_until_complete(asyncio.wait_for(replies_to(channel, *messages), 60))

    loop = asyncio.new_event_loop()
    stack = running()
    try:
        _, channel, _, listener = loop.run_until_complete(stack.__aenter__())
        attack()
        replies = loop.run_until_complete(replies_to(channel, request_headers(), request_body()))
        loop.run_until_complete(stack.__aexit__(None, None, None))
    finally:
        loop.close()
    assert len(replies) == 2
    opened = listener.count("opened")
    assert opened == sum(1 for what in listener.heard if what[0] == "closed")
    assert not listener.count("failed", "internal")


class GoneEnvoy:
    """A stream whose other end has gone before the choice can be written."""

    def __init__(self, *sent: pb.ProcessingRequest) -> None:
        self._sent = [message.SerializeToString() for message in sent]

    def invocation_metadata(self):
        return ()

    async def read(self) -> bytes:
        return self._sent.pop(0)

    async def write(self, data: bytes) -> None:
        if b"decision-id" in data:
            raise asyncio.CancelledError


@pytest.mark.parametrize("body_mode", [0, 2, 4])
async def test_a_choice_that_cannot_be_told_is_given_back_at_once(body_mode):
    """Without a body Envoy has no id of the stream to write into its log."""
    config = pb.ProtocolConfiguration(request_body_mode=body_mode)
    routers, listener = FakeRouters(), RecordingListener()
    server = ExtProcServer(routers, listener, transport=a_transport())

    envoy = GoneEnvoy(request_headers(protocol_config=config), request_body())
    with pytest.raises(asyncio.CancelledError):
        await serving(server._process.open)(None, envoy)

    (end,) = routers.completions
    assert (end.decision_id, end.stream_id) == ("", routers.stream_ids[0])
    assert listener.count("closed", "chosen") == 1


# -- the access log -------------------------------------------------------------------------------


def log_entry_message(**tags: bytes) -> pb.HTTPAccessLogEntry:
    made = pb.HTTPAccessLogEntry()
    for key, value in tags.items():
        made.common_properties.custom_tags.add(key=key.encode(), value=value)
    return made


def log_entry(stream_id: bytes = b"", **tags: bytes) -> bytes:
    return log_entry_message(stream=stream_id, **tags).SerializeToString()


def log_message(*entries: bytes) -> bytes:
    made = pb.StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=entries)
    return pb.StreamAccessLogsMessage(http_logs=made).SerializeToString()


async def logged(*messages: bytes) -> tuple[list[str], list]:
    """The ids of what was completed, and all that was heard, once the stream ended well."""
    async with running() as (_, channel, routers, listener):
        send = channel.stream_unary(
            names.ACCESS_LOG_METHOD,
            response_deserializer=pb.StreamAccessLogsResponse.FromString,
        )
        await send(iter(messages))
        return [c.stream_id for c in routers.completions], [what[1] for what in listener.heard]


async def test_entries_are_completions_and_what_belongs_to_nobody_is_counted():
    ids, heard = await logged(b"", log_message(log_entry(b"a"), log_entry(), log_entry(b"b")))
    assert ids == ["a", "b"]
    assert heard == ["failed", None, "failed"]


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x0a\x7f", b"\x0b", b"\x0a\x02\xa2\x01"])
async def test_an_entry_that_is_none_costs_itself_only(garbage):
    ids, heard = await logged(
        log_message(log_entry(b"a"), garbage, log_entry(b"b")), log_message(log_entry(b"c"))
    )
    assert ids == ["a", "b", "c"]
    assert heard.count("unreadable") == 1


async def test_a_message_that_is_none_ends_no_stream():
    ids, heard = await logged(log_message(log_entry(b"a")), b"\xff", log_message(log_entry(b"b")))
    assert ids == ["a", "b"]
    assert heard == ["failed", "unreadable", "failed"]


@pytest.mark.parametrize(
    "text", [b"caf\xe9", b"\xed\xa0\x80", b"\x00", b"\xc0\xaf", bytes(range(256))]
)
async def test_text_of_any_bytes_is_an_entry_like_others(text):
    """A request's id, a path, a tag, metadata that another filter took from a header."""
    made = pb.HTTPAccessLogEntry.FromString(log_entry(b"a", inst=text))
    metadata = made.common_properties.metadata.filter_metadata.add(key=text)
    metadata.value.fields.add(key=text).value.string_value = text
    # Field 3 is the request: 2 its scheme, 4 its path, 9 its x-request-id.
    request = b"".join(bytes((n << 3 | 2, len(text[:100]))) + text[:100] for n in (2, 4, 9))
    request = b"\x1a" + _varint(len(request)) + request
    ids, heard = await logged(log_message(made.SerializeToString() + request, log_entry(b"b")))
    assert ids == ["a", "b"]
    assert "unreadable" not in heard


def _varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes((low | 0x80,)) + _varint(high) if high else bytes((low,))


# -- health ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", "readiness", names.EXT_PROC_SERVICE])
async def test_health_follows_readiness(service):
    async with running() as (server, channel, _, _):
        assert await health(channel, service) == pb.HealthCheckResponse.SERVING
        server.set_serving(serving=False)
        assert await health(channel, service) == pb.HealthCheckResponse.NOT_SERVING
        assert await health(channel, "liveness") == pb.HealthCheckResponse.SERVING


async def test_an_unknown_service_is_not_found():
    async with running() as (_, channel, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await health(channel, "no such service")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_lists_every_service():
    async with running() as (_, channel, _, _):
        call = channel.unary_unary(
            "/grpc.health.v1.Health/List",
            request_serializer=pb.HealthListRequest.SerializeToString,
            response_deserializer=pb.HealthListResponse.FromString,
        )
        listed = await call(pb.HealthListRequest())
        expected = {"", "readiness", "liveness", "inference-extension", names.EXT_PROC_SERVICE}
        assert set(listed.statuses) == expected


async def test_watchers_are_told_of_changes_until_the_end():
    async with running() as (server, channel, _, _):
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=pb.HealthCheckRequest.SerializeToString,
            response_deserializer=pb.HealthCheckResponse.FromString,
        )(pb.HealthCheckRequest())
        assert (await watch.read()).status == pb.HealthCheckResponse.SERVING
        await server.stop(30.0)  # it ends as soon as the watcher has been told
        assert (await watch.read()).status == pb.HealthCheckResponse.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF


# -- addresses and stopping -----------------------------------------------------------------------


async def test_it_listens_on_a_socket_file(tmp_path):
    async with running(address=f"unix:{tmp_path}/extproc.sock") as (_, channel, _, _):
        assert await health(channel) == pb.HealthCheckResponse.SERVING


async def test_an_address_in_use_is_refused_by_name():
    async with running() as (_, channel, _, _):
        server = ExtProcServer(FakeRouters(), RecordingListener(), transport=a_transport())
        (port,) = await server.start(["127.0.0.1:0"])
        other = ExtProcServer(FakeRouters(), RecordingListener(), transport=a_transport())
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}; is it in use"):
            await other.start([f"127.0.0.1:{port}"])
        await server.stop(0.0)
        assert await health(channel) == pb.HealthCheckResponse.SERVING


async def test_stopping_lets_open_streams_end():
    async with running() as (server, channel, _, listener):
        call = process(channel)()
        await call.write(request_headers().SerializeToString())
        await call.read()
        stopping = asyncio.create_task(server.stop(5.0))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        await call.write(request_body().SerializeToString())
        choice = await call.read()
        assert choice.HasField("dynamic_metadata")
        await asyncio.wait_for(stopping, 60)
        assert listener.count("closed", "chosen") == 1


async def test_an_open_access_log_does_not_hold_up_a_stop():
    async with running() as (server, channel, _, listener):
        send = channel.stream_unary(
            names.ACCESS_LOG_METHOD,
        )()
        await send.write(log_message(log_entry()))
        async with asyncio.timeout(60):
            while not listener.heard:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        # Envoy never ends it.
        await asyncio.wait_for(server.stop(60.0), 60)
        assert await send.code() is grpc.StatusCode.OK
