"""What passes between the service and its reader process: bodies there, what they say back.

It knows how both are written as bytes, and neither sockets nor processes. Both ends are one version
of one program on one machine.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Callable, Mapping
from typing import Any

from lodestar_extproc.extproc.body_reading import InvalidRequest, OverBudget, ParsedBody
from lodestar_extproc.extproc.budget import Limit
from lodestar_extproc.extproc.events import Content
from lodestar_extproc.request import HASH_TYPE, Keeping, RequestKind

Reading = ParsedBody | InvalidRequest | OverBudget
"""What became of reading a body."""
READY = b"\1"
"""A reader process says so once: it has loaded what it needs."""

_KINDS = tuple(RequestKind)
_BODY = struct.Struct("=BI")  # kind, bytes that follow
_ANSWER = struct.Struct("=II")  # bytes of the head, and of the hashes after it

Receive = Callable[[int], bytes]
"""Waits for so many bytes; fewer say that no more will come."""


class LineEnded(Exception):  # noqa: N818  (the condition's name)
    """The other end is gone."""


def body_head(body: Content, kind: RequestKind) -> bytes:
    """What is sent before *body*."""
    return _BODY.pack(_KINDS.index(kind), len(body))


def receive_body(receive: Receive) -> tuple[bytes, RequestKind]:
    """Take the next body, and the API it was written for.

    Raises:
        LineEnded: none will come.
    """
    kind, n_bytes = _BODY.unpack(_exactly(receive, _BODY.size))
    return _exactly(receive, n_bytes), _KINDS[kind]


def answer(reading: Reading) -> bytes:
    """*reading* as bytes."""
    hashes = b""
    if isinstance(reading, OverBudget):
        head: Mapping[str, Any] = {"over": reading.limit}
    elif isinstance(reading, InvalidRequest):
        head = {"invalid": str(reading)}
    else:
        hashes = reading.block_hashes.tobytes()
        head = {k: v for k, v in reading._asdict().items() if k != "block_hashes"}
    written = json.dumps(head).encode()
    return b"".join((_ANSWER.pack(len(written), len(hashes)), written, hashes))


def receive_answer(receive: Receive) -> Reading:
    """Take the answer to a body.

    Raises:
        LineEnded: none will come.
    """
    n_head, n_hashes = _ANSWER.unpack(_exactly(receive, _ANSWER.size))
    written = _exactly(receive, n_head + n_hashes)
    head = json.loads(written[:n_head])
    if "over" in head:
        return OverBudget(Limit(head["over"]))
    if "invalid" in head:
        return InvalidRequest(head["invalid"])
    kept = head["keeping"]
    head |= {"block_hashes": array(HASH_TYPE, written[n_head:]), "keeping": kept and Keeping(*kept)}
    return ParsedBody(**head)


def _exactly(receive: Receive, n_bytes: int) -> bytes:
    data = receive(n_bytes)
    if len(data) < n_bytes:
        raise LineEnded
    return data
