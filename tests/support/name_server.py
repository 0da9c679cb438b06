"""A name server on loopback that knows what it was told, for Envoy and for us."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Self

TRUNCATED, ANSWERS, NO_SUCH_NAME = 0x0200, 0x8180, 0x8183


class NameServer:
    """Answers A and AAAA questions by UDP and, from the same port, by TCP.

    Attributes:
        cut: whether datagrams only say that the answer does not fit.
    """

    def __init__(self, known: Mapping[str, list[str]], *, cut: bool = False) -> None:
        self.known = known
        self.cut = cut
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(length))
        writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()

    def answer(self, query: bytes, *, cut: bool = False) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12 : at + 5]
        (kind,) = struct.unpack("!H", query[at + 1 : at + 3])
        name = ".".join(labels).lower()
        version = {1: 4, 28: 6}.get(kind)
        found = [a for a in self.known.get(name, ()) if ip_address(a).version == version]
        flags = ANSWERS if name in self.known else NO_SUCH_NAME
        if cut:
            flags, found = flags | TRUNCATED, []
        records = b"".join(
            struct.pack("!HHHIH", 0xC00C, kind, 1, 5, len(packed)) + packed
            for packed in (ip_address(a).packed for a in found)
        )
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        return head + question + records


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address) -> None:
        self._transport.sendto(self._server.answer(data, cut=self._server.cut), address)
