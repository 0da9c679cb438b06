"""A client that speaks HTTP/2 frame by frame, well or badly, to a connection without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from lodestar_extproc.transport.calls import Status, UnaryHandler
from lodestar_extproc.transport.http2.connection import Http2Connection
from lodestar_extproc.transport.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    PREFACE,
    ErrorCode,
    FrameType,
    frame,
    settings,
)

ECHO, LATE, BROKEN, GREETED = "/test/Echo", "/test/Late", "/test/Broken", "/test/Greeted"
ENDED = "/test/Ended"
CALL = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", ECHO),
    (":authority", "test"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


class EchoCall:
    """Answers each message by itself, at once or a moment later."""

    def __init__(self, call, service: EchoService, *, late: bool = False) -> None:
        self.call = call
        self.service = service
        self.late = late
        service.calls.append(self)
        self.half_closes = 0
        self.closes: list[int] = []
        self.messages: list[bytes] = []

    def received(self, message: bytes):
        self.messages.append(message)
        if not self.late:
            self.call.send(message)
            return None
        return self.answer_later(message)

    async def answer_later(self, message: bytes) -> None:
        await self.service.gate.wait()
        self.call.send(message)

    def half_closed(self) -> None:
        self.half_closes += 1
        self.call.end()

    def closed(self, n_sent: int) -> None:
        self.closes.append(n_sent)


class EchoService:
    """What the tests call; remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[EchoCall] = []
        self.gate = asyncio.Event()

    @property
    def services(self):
        return {
            ECHO: lambda call: EchoCall(call, self),
            LATE: lambda call: EchoCall(call, self, late=True),
            BROKEN: lambda call: UnaryHandler(call, self.break_down),
            GREETED: self.greet,
            ENDED: self.end,
        }

    def greet(self, call) -> EchoCall:
        call.send(b"hello")
        return EchoCall(call, self)

    def end(self, call) -> EchoCall:
        call.end(Status.UNAVAILABLE)
        return EchoCall(call, self)

    def break_down(self, _message: bytes) -> bytes:
        raise RuntimeError("a bug")


@dataclass
class Got:
    """A frame that the server sent."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def number(self) -> int:
        """The last number in it: an error code, a window."""
        at = 4 if self.kind == FrameType.GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")


@dataclass
class Http2Client:
    """Both ends: `connection` is what is tested, this the client and the wire between."""

    service: EchoService = field(default_factory=EchoService)
    now_s: float = 0.0
    window_bytes: int = 65_535
    written: bytearray = field(default_factory=bytearray)
    is_closed: bool = False
    failures: list[Exception] = field(default_factory=list)
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = Http2Connection(self.service.services, self, lambda: self.now_s)
        self.connection.begin()
        self.encoder, self.decoder = Encoder(), Decoder()
        self._tasks: set[asyncio.Task] = set()

    # -- the wire -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def soon(self, call) -> None:
        asyncio.get_running_loop().call_soon(call)

    def later(self, after_s: float, call):
        self.timers.append((after_s, call))
        return asyncio.get_running_loop().call_later(3600, lambda: None)

    def run(self, work, done):
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda t: done(None if t.cancelled() else t.exception()))
        return task

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    # -- the client ---------------------------------------------------------------------------

    def greet(self, **given) -> Http2Client:
        """Begin as one has to."""
        self.connection.receive(PREFACE + settings(given.get("settings", {})))
        return self

    def send(self, kind: FrameType, flags: int, stream_id: int, payload: bytes = b"") -> None:
        self.connection.receive(frame(kind, flags, stream_id, payload))

    def block(self, path: str = ECHO, *more, without: tuple[str, ...] = ()) -> bytes:
        """The headers of a call, packed."""
        fields = [(n, path if n == ":path" else v) for n, v in CALL if n not in without]
        return self.encoder.encode([*fields, *more])

    def call(self, stream_id: int = 1, path: str = ECHO, *more, flags: int = 0) -> None:
        """Begin a call."""
        self.send(FrameType.HEADERS, END_HEADERS | flags, stream_id, self.block(path, *more))

    def message(self, data: bytes, stream_id: int = 1, flags: int = 0) -> None:
        self.send(FrameType.DATA, flags, stream_id, message_of(data))

    # -- what came back -----------------------------------------------------------------------

    def got(self) -> list[Got]:
        """The frames that the server has sent since this was asked last, but its settings."""
        self.connection.outlet.flush()
        found, at = [], 0
        while at < len(self.written):
            high, low, kind, flags, stream_id = HEADER.unpack_from(self.written, at)
            end = at + HEADER_BYTES + (high << 8 | low)
            found.append(Got(kind, flags, stream_id, bytes(self.written[at + HEADER_BYTES : end])))
            at = end
        self.written.clear()
        return [each for each in found if each.kind != FrameType.SETTINGS or each.flags & ACK]

    def fault(self) -> ErrorCode | None:
        """What the server ended the connection for."""
        codes = [each.number for each in self.got() if each.kind == FrameType.GOAWAY]
        return ErrorCode(codes[-1]) if codes and self.is_closed else None

    def reset(self) -> ErrorCode | None:
        """What the server ended a stream for, while the connection goes on."""
        codes = [each.number for each in self.got() if each.kind == FrameType.RST_STREAM]
        return ErrorCode(codes[-1]) if codes and not self.is_closed else None

    def answer(self, stream_id: int = 1) -> tuple[list[bytes], dict[str, str] | None]:
        """Messages and trailers on a stream."""
        data, trailers = b"", None
        for each in self.got():
            if each.kind == FrameType.HEADERS:
                headers = dict(self.decoder.decode(each.payload))
                if each.flags & END_STREAM and each.stream_id == stream_id:
                    trailers = headers
            elif each.kind == FrameType.DATA and each.stream_id == stream_id:
                data += each.payload
        return messages_in(data), trailers


def message_of(data: bytes, compressed: int = 0) -> bytes:
    """As gRPC puts one into DATA."""
    return bytes((compressed,)) + len(data).to_bytes(4, "big") + data


def messages_in(data: bytes) -> list[bytes]:
    found = []
    while data:
        n_bytes = int.from_bytes(data[1:5], "big")
        found.append(data[5 : 5 + n_bytes])
        data = data[5 + n_bytes :]
    return found
