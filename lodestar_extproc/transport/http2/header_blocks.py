"""HeaderBlocks: the headers of one connection, read; and those of answers, written.

HPACK is the library `hpack`. What a client sends again and again is read once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from hpack.exceptions import HPACKError
from hpack.hpack import Decoder
from hpack.table import HeaderTable

from lodestar_extproc.transport.calls import Status
from lodestar_extproc.transport.http2.frames import ConnectionFault, ErrorCode, StreamFault

MAX_BLOCK_BYTES = 16 * 2**10
"""Of one header block, packed: twice what gRPC takes (`grpc.max_metadata_size`)."""
MAX_LIST_BYTES = 256 * 2**10
"""Unpacked; a small block can name a large entry again and again. More ends the connection."""
MAX_REMEMBERED = 64
"""Blocks that were read: an Envoy sends a few different ones. A judgement."""
MAX_TEXT_BYTES = 1024
"""Of a status message: it has to fit a frame of any size. A judgement."""
_UNITS: Mapping[str, float] = MappingProxyType(
    {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
)
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z")
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_OF_CONNECTIONS = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_GRPC = re.compile(r"application/grpc([+;].*)?")

Fields = Iterable[tuple[bytes, bytes]]


class Head(NamedTuple):
    """What a call began with.

    Attributes:
        is_grpc: it is a call; else something that only speaks HTTP/2.
        n_bytes: what its body is to be, where that is said.
        timeout_s: how long the client will wait; None where it does not say.
        encoding: how its messages are compressed, where one says that it is.
    """

    path: str
    metadata: Mapping[str, str]
    is_grpc: bool
    n_bytes: int | None
    timeout_s: float | None
    encoding: str


class HeaderBlocks:
    """Reads header blocks, in the order in which they come: each may refer to those before."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=MAX_LIST_BYTES)
        self._table = self._decoder.header_table = _WatchedTable()
        self._read_at = 0
        self._heads: dict[bytes, Head] = {}

    def head(self, block: bytes) -> Head:
        """What a stream begins with.

        Raises:
            ConnectionFault: the block cannot be read: nor can any that follows.
            StreamFault: it is no request.
        """
        n_changes = self._table.n_changes
        if n_changes != self._read_at or len(self._heads) >= MAX_REMEMBERED:
            # The same bytes may mean something else by now.
            self._heads.clear()
            self._read_at = n_changes
        known = self._heads.get(block)
        if known is not None:
            return known
        head = _head(self._fields(block))
        if self._table.n_changes == n_changes:
            self._heads[block] = head
        return head

    def are_trailers(self, block: bytes) -> bool:
        """Whether a request may end with them. They are read, for what follows may refer to them.

        Raises:
            ConnectionFault: as of `head`.
        """
        try:
            for name, value in self._fields(block):
                _check(name, value)
        except StreamFault:
            return False
        return True

    def _fields(self, block: bytes) -> Fields:
        try:
            return self._decoder.decode(block, raw=True)
        except (HPACKError, IndexError) as error:
            # The library's own words may say where the block lies in our memory.
            problem = f"headers cannot be unpacked: {type(error).__name__}"
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, problem) from error


class _WatchedTable(HeaderTable):
    """Counts what changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.n_changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.n_changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return super().maxsize

    @maxsize.setter
    def maxsize(self, size: int) -> None:
        self.n_changes += 1
        HeaderTable.maxsize.fset(self, size)  # type: ignore[attr-defined]


def _head(fields: Fields) -> Head:
    pseudo: dict[bytes, bytes] = {}
    plain: dict[str, str] = {}
    for name, value in fields:
        if name[:1] == b":":
            if plain or name in pseudo or name not in _PSEUDO:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR)
            pseudo[name] = value
        else:
            _check(name, value)
            plain[name.decode()] = _text(value)
    if not {b":method", b":scheme", b":path"} <= pseudo.keys() or not pseudo[b":path"]:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR)
    n_bytes = plain.get("content-length")
    if n_bytes is not None and not (n_bytes.isdecimal() and n_bytes.isascii()):
        raise StreamFault(ErrorCode.PROTOCOL_ERROR)
    is_grpc = _GRPC.fullmatch(plain.get("content-type", "")) is not None
    return Head(
        path=_text(pseudo[b":path"]),
        metadata=MappingProxyType(plain),
        is_grpc=is_grpc and pseudo[b":method"] == b"POST",
        n_bytes=None if n_bytes is None else int(n_bytes),
        timeout_s=_timeout_s(plain.get("grpc-timeout", "")),
        encoding=plain.get("grpc-encoding", "identity"),
    )


def _check(name: bytes, value: bytes) -> None:
    """Whether it is a header of a message, by RFC 9113, section 8.2."""
    if (
        not _NAME.fullmatch(name)
        or _BAD_VALUE.search(value)
        or name in _OF_CONNECTIONS
        or (name == b"te" and value != b"trailers")
    ):
        raise StreamFault(ErrorCode.PROTOCOL_ERROR)


def _text(value: bytes) -> str:
    """As grpcio reads one."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _timeout_s(text: str) -> float | None:
    found = _TIMEOUT.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def _literal(name: str, value: bytes) -> bytes:
    """A header that no table remembers (RFC 7541, section 6.2.2)."""
    return b"\x00" + _string(name.encode()) + _string(value)


def _string(text: bytes) -> bytes:
    """RFC 7541, sections 5.1 and 5.2: a length of 7 bits and more, then the bytes as they are."""
    n_bytes = len(text)
    if n_bytes < 0x7F:
        return bytes((n_bytes,)) + text
    packed, n_bytes = bytearray((0x7F,)), n_bytes - 0x7F
    while n_bytes >= 0x80:
        packed.append(n_bytes & 0x7F | 0x80)
        n_bytes >>= 7
    return bytes((*packed, n_bytes)) + text


_STATUS_200 = b"\x88"  # RFC 7541, appendix A
BEGINNING = (
    _STATUS_200
    + _literal("content-type", b"application/grpc")
    + _literal("grpc-accept-encoding", b"identity, deflate, gzip")
)
"""Of every answer to a call."""
NOT_GRPC = _literal(":status", b"415") + _literal("content-type", b"text/plain")
GOOD_END = _literal("grpc-status", b"0")


def ending(status: Status, text: str = "") -> bytes:
    """The trailers of an answer; *text* is percent-encoded as gRPC says."""
    if status is Status.OK:
        return GOOD_END
    said = b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in text.encode("utf-8", "replace")[:MAX_TEXT_BYTES]
    )
    return _literal("grpc-status", str(int(status)).encode()) + _literal("grpc-message", said)
