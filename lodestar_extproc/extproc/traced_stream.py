"""TracedStream: one stream's part in the trace of its request, where traces are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from lodestar_extproc.decision import Decision
from lodestar_extproc.extproc.events import Event, Headers, RequestHeaders, RouteTo
from lodestar_extproc.extproc.modes import Replies
from lodestar_extproc.extproc.stream_outcome import StreamOutcome


class Trace(Protocol):
    """Of one request."""

    def decided(
        self, decision: Decision, came_at_s: float, read_at_s: float, decided_at_s: float
    ) -> Headers: ...

    def end(self, outcome: str, at_s: float) -> None: ...


class Traces(Protocol):
    """Begins them; see `tracing.request_traces.RequestTraces`."""

    @property
    def headers(self) -> frozenset[str]: ...

    def begin(self, headers: Mapping[str, str], at_s: float) -> Trace | None: ...


class TracedStream:
    """Costs nothing to speak of where *traces* is None, or the request is not sampled."""

    def __init__(self, traces: Traces | None, clock: Callable[[], float]) -> None:
        self._traces = traces
        self._clock = clock
        self._trace: Trace | None = None
        self._read_at_s = 0.0

    def came(self, event: Event) -> None:
        """A message came."""
        if self._traces is not None and isinstance(event, RequestHeaders):
            self._trace = self._traces.begin(event.headers, event.at_s)

    def read(self) -> None:
        """What it brought was read, and is to be decided on."""
        if self._trace is not None:
            self._read_at_s = self._clock()

    def told(self, event: Event, decision: Decision | None, replies: Replies) -> Replies:
        """The *replies* to *event*; the one that routes carries the trace on."""
        if self._trace is None or decision is None:
            return replies
        trace, self._trace = self._trace, None
        headers = trace.decided(decision, event.at_s, self._read_at_s, self._clock())
        return tuple(
            replace(reply, headers=(*reply.headers, *headers))
            if isinstance(reply, RouteTo)
            else reply
            for reply in replies
        )

    def close(self, outcome: StreamOutcome) -> None:
        """The stream is over; of a request without a decision, that is all there is to tell."""
        if self._trace is not None:
            self._trace.end(outcome, self._clock())
            self._trace = None
