"""ask(): the addresses of a name, by a name server that the cluster names, not by the system's.

One question in one datagram, by RFC 1035; over TCP where the answer does not fit into one. The
server is recursive, as those are that resolvers are pointed at, and follows aliases itself.
"""

from __future__ import annotations

import asyncio
import random
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

A, AAAA, IN = 1, 28, 1  # types and class of records, RFC 1035 and RFC 3596
HEADER = struct.Struct("!HHHHHH")
RECORD = struct.Struct("!HHIH")
RECURSION_DESIRED, TRUNCATED, RCODE = 0x0100, 0x0200, 0x000F  # in the header's second word
POINTER = 0xC0  # the two bits of a length that is none but points to an earlier name
NOT_FOUND = 3  # RCODE: there is no such name
TIMEOUT_S = 2.0
"""Servers that are asked here stand in the same cluster; Envoy's c-ares asks again after 5 s."""


async def ask(server: str, host: str, record: int) -> list[str]:
    """The addresses of *host*; none where the server knows none of this kind.

    Args:
        server: `address:port`.
        record: A or AAAA.

    Raises:
        OSError: the server does not answer, or answers that it cannot.
    """
    address, _, port = server.rpartition(":")
    place = address.strip("[]"), int(port)
    number = random.getrandbits(16)
    query = _query(number, host, record)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await _by_datagram(place, query)
            if HEADER.unpack_from(answer)[1] & TRUNCATED:
                answer = await _by_connection(place, query)
        return _addresses(answer, number, record)
    except TimeoutError as error:
        raise OSError(f"name server {server} does not answer") from error
    except (struct.error, IndexError, ValueError) as error:
        raise OSError(f"name server {server} answers what is no DNS") from error


def _query(number: int, host: str, record: int) -> bytes:
    labels = host.rstrip(".").encode("idna").split(b".")
    name = b"".join(bytes([len(label)]) + label for label in labels)
    head = HEADER.pack(number, RECURSION_DESIRED, 1, 0, 0, 0)
    return head + name + b"\0" + struct.pack("!HH", record, IN)


async def _by_datagram(place: tuple[str, int], query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _OneAnswer(query), remote_addr=place
    )
    try:
        return await protocol.answer
    finally:
        transport.close()


async def _by_connection(place: tuple[str, int], query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*place)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise OSError("the name server ends in mid-answer") from error
    finally:
        writer.close()


class _OneAnswer(asyncio.DatagramProtocol):
    """Sends a query and keeps the first answer to it."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.sendto(self._query)

    def datagram_received(self, data: bytes, _: object) -> None:
        if data[:2] == self._query[:2] and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def _addresses(answer: bytes, number: int, record: int) -> list[str]:
    told, flags, questions, answers, _, _ = HEADER.unpack_from(answer)
    code = flags & RCODE
    if told != number or code not in (0, NOT_FOUND):
        raise OSError(f"the name server answers with code {code}")
    at = HEADER.size
    for _ in range(questions):
        at = _behind_name(answer, at) + 4
    found = []
    for _ in range(answers):
        at = _behind_name(answer, at)
        kind, _, _, length = RECORD.unpack_from(answer, at)
        at += RECORD.size
        if kind == record:
            found.append(_text(answer[at : at + length]))
        at += length
    return found


def _behind_name(answer: bytes, at: int) -> int:
    while length := answer[at]:
        if length & POINTER:
            return at + 2
        at += 1 + length
    return at + 1


def _text(packed: bytes) -> str:
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))
