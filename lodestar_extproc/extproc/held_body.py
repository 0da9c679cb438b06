"""HeldBody: a request's body, kept until it is routed; and how Envoy gets bytes back.

It knows no protocol beyond the size of a part.
"""

from __future__ import annotations

from io import BytesIO

from lodestar_extproc.extproc.events import BodyPart, Content, Continue, Event, Phase

MAX_BODY_BYTES = 64 * 2**20
"""What is kept of a body that comes in parts; Envoy's buffer limit bounds the other modes.

The same as the largest gRPC message (`transport.calls.MAX_MESSAGE_BYTES`).
"""
MAX_PART_BYTES = 62_000
"""The most that goes back in one message: Envoy takes no more than 64 KiB at once.

The figure of the Gateway API inference extension's endpoint picker (`bodyByteLimit`).
"""


class HeldBody:
    """One body, put together as its parts come: 10 MB at once would hold up others for 8 ms."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._only: Content = b""
        self._parts: BytesIO | None = None

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached: no more is kept."""
        return self.n_bytes >= MAX_BODY_BYTES

    def add(self, part: Content) -> None:
        """Keep the next part, unless the limit is reached."""
        if not part or self.is_full:
            return
        if not self.n_bytes:
            self._only = part
        else:
            if self._parts is None:
                self._parts = BytesIO()
                self._parts.write(self._only)
                self._only = b""
            self._parts.write(part)
        self.n_bytes += len(part)

    def content(self) -> Content:
        """All that was kept; no copy of a body that came at once, or to which no more is added."""
        return self._only if self._parts is None else self._parts.getvalue()

    def clear(self) -> None:
        """Forget all parts."""
        self.n_bytes, self._only, self._parts = 0, b"", None


def body_parts(phase: Phase, data: Content, *, end_of_stream: bool) -> tuple[BodyPart, ...]:
    """Cut *data* into parts of a size that Envoy takes; *end_of_stream* goes with the last one.

    They are views of it.

    >>> [len(p.body) for p in body_parts(Phase.REQUEST_BODY, bytes(130_000), end_of_stream=True)]
    [62000, 62000, 6000]
    >>> body_parts(Phase.REQUEST_BODY, b"", end_of_stream=False)
    ()
    """
    if len(data) <= MAX_PART_BYTES:
        return (BodyPart(phase, data, end_of_stream),) if data or end_of_stream else ()
    view, starts = memoryview(data), range(0, len(data), MAX_PART_BYTES)
    return tuple(
        BodyPart(
            phase,
            view[at : at + MAX_PART_BYTES],
            end_of_stream and at + MAX_PART_BYTES >= len(data),
        )
        for at in starts
    )


def given_back(last: Event, content: Content) -> tuple[BodyPart | Continue, ...]:
    """Give *content* back after the reply to its headers; *last* was the request's last event."""
    if last.phase is Phase.REQUEST_HEADERS:
        return ()
    if last.phase is Phase.REQUEST_BODY:
        return body_parts(last.phase, content, end_of_stream=True)
    parts = body_parts(Phase.REQUEST_BODY, content, end_of_stream=False)
    return (*parts, Continue(last.phase))
