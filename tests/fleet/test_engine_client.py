"""EngineClient against servers that answer as servers do, and as they should not."""

import asyncio
import gc
import socket
import time
import weakref
from contextlib import asynccontextmanager, closing, suppress

import pytest
import uvloop

from collector import n_alive, only_when_told
from lodestar_extproc.fleet import engine_client
from lodestar_extproc.fleet.engine_client import EngineClient, EngineSilent
from lodestar_extproc.fleet.engine_connection import EngineConnection
from waiting import until

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answers each request on each connection with the next of *answers*; None closes.

    Attributes:
        asked: what was sent, by connection.
    """

    def __init__(self, *answers: bytes | None, pieces: int = 10**9) -> None:
        self._answers = list(answers)
        self._pieces = pieces
        self.asked: list[list[bytes]] = []

    async def serve(self, reader, writer):
        mine: list[bytes] = []
        self.asked.append(mine)
        try:
            while self._answers:
                mine.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self._answers.pop(0)
                if answer is None:
                    break
                for start in range(0, len(answer), self._pieces):
                    writer.write(answer[start : start + self._pieces])
                    await writer.drain()
                    await asyncio.sleep(0)
                if b"Connection: close" in answer or b"HTTP/1.0" in answer:
                    break
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(server):
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/metrics"
    finally:
        listening.close()


async def asked(server, *, n=1, max_bytes=1000, within_s=5.0):
    async with serving(server) as url:
        with closing(EngineClient()) as client:
            return [await client.get(url, within_s=within_s, max_bytes=max_bytes) for _ in range(n)]


@pytest.mark.parametrize("pieces", [1, 7, 10**9])
@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (WHOLE, 200, b"hello"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            200,
            b"hello",
        ),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", 200, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 503, b""),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, 200, b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + WHOLE, 200, b"hello"),
    ],
)
async def test_an_answer_is_read_however_it_is_framed_and_cut(answer, status, body, pieces):
    [found] = await asked(Server(answer, pieces=pieces))

    assert (found.status, found.body) == (status, body)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (None, "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhello", "closed"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "did not answer in HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x50", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, "more than 1000"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 200_000, "more than 1000"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "answer"),
    ],
)
async def test_what_is_no_whole_answer_says_why(answer, problem):
    with pytest.raises(EngineSilent, match=problem) as caught:
        await asked(Server(answer))

    assert "http://127.0.0.1" in str(caught.value)


async def test_one_connection_serves_one_request_after_the_other():
    server = Server(*[WHOLE] * 5)
    await asked(server, n=5)

    assert [len(each) for each in server.asked] == [5]
    assert server.asked[0][0].startswith(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_connection_that_was_closed_while_idle_is_replaced_unseen():
    server = Server(WHOLE, None, WHOLE)
    first, second = await asked(server, n=2)

    assert first.body == second.body == b"hello"
    assert len(server.asked) == 2


async def test_what_was_idle_for_long_is_closed_by_us(monkeypatch):
    monkeypatch.setattr(engine_client, "KEEPALIVE_S", 0.01)
    monkeypatch.setattr(engine_client, "SWEEP_S", 0.0)
    server = Server(WHOLE, WHOLE)
    async with serving(server) as url:
        with closing(EngineClient()) as client:
            await client.get(url, within_s=5.0, max_bytes=1000)
            await asyncio.sleep(0.05)
            await client.get(url, within_s=5.0, max_bytes=1000)

    assert [len(each) for each in server.asked] == [1, 1]


async def test_what_is_late_is_given_up_and_its_connection_with_it():
    gone = asyncio.Event()

    async def silent(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        gone.set()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/health"
    with closing(EngineClient()) as client:
        with pytest.raises(TimeoutError):
            await client.get(url, within_s=0.05, max_bytes=1000)
        await asyncio.wait_for(gone.wait(), 10)
    listening.close()


@pytest.mark.parametrize(
    "url",
    ["", "no url", "ftp://host/", "http://", "http://[::bad/", "http://h:99999/", "https://h/"],
)
async def test_what_is_no_url_is_refused(url):
    with closing(EngineClient()) as client, pytest.raises(ValueError, match=r".+"):
        await client.get(url, within_s=1.0, max_bytes=1000)


async def test_closing_leaves_nothing_open():
    server = Server(WHOLE, WHOLE)
    async with serving(server) as url:
        client = EngineClient()
        await client.get(url, within_s=5.0, max_bytes=1000)
        client.close()
        await until(lambda: not client._open)


def holds_bytes(root: object, n_bytes: int) -> bool:
    """Whether *root*, or what it refers to, refers to so many."""
    held = gc.get_referents(root, *gc.get_referents(root))
    return any(isinstance(each, bytes) and len(each) >= n_bytes for each in held)


async def test_a_connection_that_has_ended_is_gone_at_once_and_its_page_before(monkeypatch):
    made, connect = [], EngineClient._connect

    async def noted(client, origin):
        connection = await connect(client, origin)
        made.append(weakref.ref(connection))
        return connection

    monkeypatch.setattr(EngineClient, "_connect", noted)
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + 2000 * b"x"
    with only_when_told():
        async with serving(Server(page)) as url:
            with closing(EngineClient()) as client:
                await client.get(url, max_bytes=3000, within_s=5.0)
                (connection,) = made
                assert not holds_bytes(connection(), 2000)
            await until(lambda: connection() is None)


async def test_a_connection_that_is_refused_leaves_nothing_to_the_collector():
    """Of a thousand endpoints that refuse, it would have to find 2,000 a second."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/metrics"
    with closing(EngineClient()) as client, only_when_told():
        for _ in range(3):
            with suppress(OSError):
                await client.get(url, max_bytes=1000, within_s=5.0)
        kept = n_alive(EngineConnection)
        gc.collect()
        assert kept == n_alive(EngineConnection)


def test_a_long_page_lets_the_loop_turn_while_it_comes():
    page, turns = b"x" * 3_000_000, 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> bytes:
        nonlocal turns
        with closing(EngineClient()) as client, socket.create_server(("127.0.0.1", 0)) as server:
            address, port = server.getsockname()
            answers = asyncio.create_task(
                client.get(f"http://{address}:{port}/", within_s=10.0, max_bytes=2 * len(page))
            )
            await asyncio.sleep(0.05)
            peer, _ = server.accept()
            with peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * len(page))
                sending = asyncio.to_thread(
                    peer.sendall,
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page),
                )
                sent = asyncio.ensure_future(sending)
                await asyncio.sleep(0)
                time.sleep(0.3)  # noqa: ASYNC251  (so that all of it is there when the loop looks)
                counting = asyncio.create_task(count())
                _, answer = await asyncio.gather(sent, answers)
                counting.cancel()
            return answer.body

    # uvloop reads a connection until it is empty, as often as it may.
    assert uvloop.run(main()) == page
    assert turns >= len(page) // (256 * 1024)
