"""Long bodies are read in a process beside the service, as they would be read in it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector import only_when_told
from extproc_fakes import FakeRouters, RecordingListener
from lodestar_extproc import names
from lodestar_extproc.extproc.body_reader import AWAY_BYTES, NEAR_BYTES, BodyReader
from lodestar_extproc.extproc.body_reading import InvalidRequest, OverBudget, reading
from lodestar_extproc.extproc.budget import Limit
from lodestar_extproc.extproc.reader_frames import answer, receive_answer
from lodestar_extproc.extproc.reader_main import read_in_time
from lodestar_extproc.extproc.reader_process import COMMAND, HUNG_S, ReaderEnded, ReaderProcess
from lodestar_extproc.extproc.server import ExtProcServer
from lodestar_extproc.extproc.unread_body import UnreadBody
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb
from lodestar_extproc.request import RequestKind
from lodestar_extproc.supervision import BackgroundTask, Supervisor
from process_children import children_of
from transports import a_transport
from waiting import until

CHAT, COMPLETIONS, RESPONSES = (
    RequestKind.CHAT_COMPLETIONS,
    RequestKind.COMPLETIONS,
    RequestKind.RESPONSES,
)
MIB = 2**20


def chat(n_bytes: int, text: str = "The tide table, größe 你好. ", **fields: object) -> bytes:
    content = text * (n_bytes // len(text.encode()) + 1)
    fields = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    return json.dumps(fields, ensure_ascii=False).encode()


def image(n_bytes: int) -> bytes:
    """Of which little is hashed."""
    url = f"data:image/png;base64,{'A' * n_bytes}"
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    return json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()


BODIES = {
    "a text": (chat(MIB), CHAT),
    "ten MiB": (chat(10 * MIB), CHAT),
    "a stream of a session": (chat(AWAY_BYTES, stream=True, user="me", max_tokens=7), CHAT),
    "token ids": (json.dumps({"prompt": list(range(90_000))}).encode(), COMPLETIONS),
    "what is kept": (
        json.dumps({"input": "x" * MIB, "previous_response_id": "resp_1"}).encode(),
        RESPONSES,
    ),
    "tiny parts": (b'{"messages": [{"content": [' + b"{}," * MIB + b"0]}]}", CHAT),
    "nested": (b'{"tools": [' + b"[" * 300 + b"]" * 300 + b"]}", CHAT),
    "no JSON": (b'{"model": ' + b"x" * MIB, CHAT),
    "no object": (b"[" + b"1," * 9 + b"1]", CHAT),
    "lone surrogates": (b'{"model": "\\ud800", "prompt": "\\udfff"}', COMPLETIONS),
    "nothing": (b"", CHAT),
}


def same(one: object, other: object) -> bool:
    if isinstance(one, (InvalidRequest, OverBudget)):
        return type(one) is type(other) and one.args == other.args
    return one == other


@asynccontextmanager
async def running(reader: ReaderProcess):
    failures: list[str] = []
    task = asyncio.create_task(
        Supervisor(failures.append, sleep=lambda _: asyncio.sleep(0.01)).keep(
            BackgroundTask.READER, reader.run
        )
    )
    try:
        yield failures
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def ready(reader: ReaderProcess):
    async with running(reader) as failures:
        reader.want()
        await until(lambda: reader.is_ready)
        yield failures


def children() -> list[int]:
    """Our own processes that read."""
    return children_of(os.getpid(), COMMAND[-1])


# -- the same as here -----------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch):
    """As long as a reading takes, on however busy a machine."""
    for name in ("MAX_WAIT_S", "HUNG_S"):
        monkeypatch.setattr(f"lodestar_extproc.extproc.reader_process.{name}", 60.0)


@pytest.mark.usefixtures("patient")
async def test_a_body_says_the_same_there_as_here():
    reader = ReaderProcess()
    async with ready(reader):
        for name, (body, kind) in BODIES.items():
            there, here = await reader.read(body, kind), UnreadBody(body, kind).read()
            assert same(there, here), name


FIELDS = (
    *("model", "messages", "prompt", "input", "stream", "tools", "user", "max_tokens"),
    *("store", "conversation", "cache_salt", "previous_response_id"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from(FIELDS),
        json_values,
    ),
    kind=st.sampled_from(tuple(RequestKind)),
)
def test_whatever_a_body_says_passes_between_the_processes_unchanged(fields, kind):
    says = read_in_time(reading(json.dumps(fields).encode(), kind))
    written = answer(says)
    at = 0

    def receive(n_bytes: int) -> bytes:
        nonlocal at
        at += n_bytes
        return written[at - n_bytes : at]

    assert same(receive_answer(receive), says)
    assert at == len(written)


@pytest.mark.usefixtures("patient")
async def test_bodies_that_come_at_once_are_each_told_their_own():
    reader = ReaderProcess()
    async with ready(reader):
        bodies = [chat(AWAY_BYTES, f"text {k} ", user=f"user {k}") for k in range(8)]
        there = await asyncio.gather(*(reader.read(body, CHAT) for body in bodies))
        assert there == [UnreadBody(body, CHAT).read() for body in bodies]


# -- when it is there -----------------------------------------------------------------------------


async def read_by(reader: BodyReader, body: bytes) -> UnreadBody:
    unread = UnreadBody(body, CHAT)
    await reader.read(unread)
    return unread


async def test_nobody_pays_for_the_process_before_a_long_body_comes():
    process = ReaderProcess()
    async with running(process):
        reader = BodyReader(process, time.monotonic)
        await read_by(reader, chat(NEAR_BYTES // 2))
        await asyncio.sleep(0.2)
        assert not children()
        await read_by(reader, chat(NEAR_BYTES))
        await until(children)
    assert not children()


async def test_without_the_process_a_body_is_read_in_the_service():
    says = (await read_by(BodyReader(ReaderProcess(), time.monotonic), chat(2 * MIB))).says
    assert says == read_in_time(reading(chat(2 * MIB), CHAT))


async def test_the_loop_works_for_less_than_three_milliseconds_on_a_body_of_ten_megabytes():
    process, body = ReaderProcess(), chat(10 * MIB)
    async with ready(process):
        reader, took_s = BodyReader(process, time.monotonic), []
        for _ in range(5):
            before_s = time.thread_time()
            await read_by(reader, body)
            took_s.append(time.thread_time() - before_s)
    assert min(took_s) < 0.003


def test_the_process_loads_what_reading_needs_and_nothing_else():
    loaded = subprocess.run(
        [sys.executable, "-c", f"import {COMMAND[-1]}, sys; print(*sys.modules)"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    heavy = {"grpc", "google", "asyncio", "pydantic", "lodestar_extproc.config", "scipy"}
    assert not heavy.intersection(loaded.split())


def test_while_it_reads_a_long_body_little_but_its_text_is_kept():
    tracemalloc.start()
    try:
        steps = reading(chat(6 * MIB), CHAT)
        next(steps)
        tracemalloc.reset_peak()
        with suppress(StopIteration):
            while True:
                next(steps)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 15 * MIB


# -- when it fails --------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
async def test_a_process_that_is_killed_is_counted_and_begun_anew():
    process = ReaderProcess()
    async with ready(process) as failures:
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: failures)
        assert failures == [BackgroundTask.READER]
        await until(lambda: process.is_ready)
        assert await process.read(b'{"prompt": "a"}', COMPLETIONS)


def dies_over(body: bytes) -> ReaderProcess:
    """One that is gone as soon as it has *body*."""
    code = f"import os; os.write(1, bytes([1])); open(0, 'rb').read({5 + len(body)})"
    return ReaderProcess((sys.executable, "-c", code))


@pytest.mark.usefixtures("patient")
async def test_a_body_over_which_the_process_dies_is_known_by_its_size_and_not_read_here():
    body = chat(AWAY_BYTES)
    process = dies_over(body)
    async with ready(process) as failures:
        unread = await read_by(BodyReader(process, time.monotonic), body)
        assert isinstance(unread.says, OverBudget)
        assert unread.says.limit is Limit.PROCESS
        await until(lambda: failures)


async def test_a_process_that_cannot_be_begun_costs_nobody_a_body():
    process = ReaderProcess(("/nonexistent/python",))
    async with running(process) as failures:
        process.want()
        await until(lambda: failures)
        says = (await read_by(BodyReader(process, time.monotonic), chat(AWAY_BYTES))).says
        assert says == read_in_time(reading(chat(AWAY_BYTES), CHAT))


async def test_a_process_that_is_stopped_holds_nobody_up_for_longer_than_envoy_waits():
    """And is ended, for it would never answer."""
    process = ReaderProcess()
    async with ready(process) as failures:
        (pid,) = children()
        os.kill(pid, signal.SIGSTOP)
        came_s = time.monotonic()
        says = await process.read(chat(MIB), CHAT)
        assert isinstance(says, OverBudget)
        assert says.limit is Limit.TIME
        assert time.monotonic() - came_s < HUNG_S  # 0.3 s, on a machine that is not busy
        await until(lambda: failures)
        await until(lambda: process.is_ready)
        assert await process.read(b'{"prompt": "a"}', COMPLETIONS)


async def test_an_end_that_nobody_asked_for_is_told():
    process = dies_over(b"")
    process.want()
    running_it = asyncio.create_task(process.run())
    await until(lambda: process.is_ready or running_it.done())
    await process.read(b"", CHAT)
    with pytest.raises(ReaderEnded, match="status"):
        await running_it


def test_the_process_ends_with_the_service():
    """However that ends: nobody is left to send it bodies."""
    assert subprocess.run(COMMAND, stdin=subprocess.DEVNULL, check=False).returncode == 0


# -- memory ---------------------------------------------------------------------------------------


def messages(body: bytes) -> list[bytes]:
    opening = pb.ProcessingRequest()
    for key, value in ((b":method", b"POST"), (b":path", b"/v1/chat/completions")):
        opening.request_headers.headers.headers.add(key=key, raw_value=value)
    last = pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True))
    return [opening.SerializeToString(), last.SerializeToString()]


@pytest.mark.parametrize(
    "body",
    [image(3 * MIB), b'{"messages": [{"content": [' + b"{}," * MIB + b"0]}]}"],
    ids=["read", "over budget"],
)
async def test_a_body_is_let_go_once_it_is_read_though_its_stream_stays_open(body):
    """Not when garbage is collected, which may be many bodies later."""
    server = ExtProcServer(FakeRouters(), RecordingListener(), transport=a_transport())
    (port,) = await server.start(["127.0.0.1:0"])
    options = (("grpc.max_send_message_length", -1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        with only_when_told():
            tracemalloc.start()
            try:
                calls = [channel.stream_stream(names.PROCESS_METHOD)() for _ in range(4)]
                for call in calls:
                    for message in messages(body):
                        await call.write(message)
                        await call.read()
                    del message
                held_bytes, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        for call in calls:
            call.cancel()
    await server.stop(0.0)
    assert held_bytes < 2 * len(body)
