"""RequestTraces: our spans in the trace of each request that is sampled.

    lodestar.request    from the request's headers to our reply; what goes on is its child
      lodestar.read     reading the body, once all of it has come
      lodestar.decide   snapshot, features, ranking
      lodestar.learn    from the decision to the first token that taught us

The trace is the client's or Envoy's, by `traceparent` (https://www.w3.org/TR/trace-context/), and
the engine gets ours as its parent. Where spans go and which are sampled, the SDK's own variables
say: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and so on.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision as Sampling
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lodestar_extproc import __version__
from lodestar_extproc.decision import Decision
from lodestar_extproc.printable import printable
from lodestar_extproc.routing.ended_request import EndedRequest, ObservedFirstToken

Headers = tuple[tuple[str, str], ...]
SERVICE = "lodestar-extproc"
MAX_OPEN = 10_000
"""Traces whose first token is awaited, 1 KB each; of more, the oldest learns nothing."""
_NS = 1e9  # of a second
_PARENT = re.compile("[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED_FLAGS = frozenset("13579bdf")
"""Last digit of a `traceparent`: its lowest bit says that the trace is sampled."""


class _DrawnIds(RandomIdGenerator):
    """Gives the next trace the id that its sampling was drawn by."""

    def __init__(self) -> None:
        self._drawn: int | None = None

    def draw(self) -> int:
        self._drawn = super().generate_trace_id()
        return self._drawn

    def generate_trace_id(self) -> int:
        drawn, self._drawn = self._drawn, None
        return super().generate_trace_id() if drawn is None else drawn


class RequestTrace:
    """One sampled request, until it is answered."""

    def __init__(self, traces: RequestTraces, span: Span) -> None:
        self._traces = traces
        self._span = span

    def decided(
        self, decision: Decision, came_at_s: float, read_at_s: float, decided_at_s: float
    ) -> Headers:
        """Tell of *decision*, and end; the headers by which the engine goes on with the trace."""
        context = set_span_in_context(self._span)
        self._traces.tell("lodestar.read", context, came_at_s, read_at_s, _asked(decision))
        self._traces.tell("lodestar.decide", context, read_at_s, decided_at_s, _chosen(decision))
        self._traces.await_first_token(decision.decision_id, context)
        self._span.set_attributes({"lodestar.decision_id": decision.decision_id})
        self.end("decided", decided_at_s)
        carrier: dict[str, str] = {}
        self._traces.propagator.inject(carrier, context)
        return tuple(carrier.items())

    def end(self, outcome: str, at_s: float) -> None:
        """It was answered, or left to Envoy."""
        self._span.set_attribute("lodestar.outcome", outcome)
        self._span.end(self._traces.wall_ns(at_s))


class RequestTraces:
    """Begins traces, and is a `RouterListener` of every pool.

    Args:
        exporter: where spans go; None for nowhere.

    Attributes:
        headers: of a request, that it wants to know.
    """

    headers: ClassVar = frozenset({"traceparent", "tracestate"})

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        resource = Resource({SERVICE_NAME: SERVICE}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._provider.id_generator = self._ids = _DrawnIds()
        self._sampler = self._provider.sampler
        self._follows_parent = isinstance(self._sampler, ParentBased)
        self._tracer: Tracer = self._provider.get_tracer(SERVICE, __version__)
        self.propagator = TraceContextTextMapPropagator()
        self._awaiting: OrderedDict[str, Context] = OrderedDict()

    def begin(self, headers: Mapping[str, str], at_s: float) -> RequestTrace | None:
        """Our part of the trace that *headers* name, or of a new one; None if not sampled."""
        if not self._may_be_sampled(headers.get("traceparent")):
            return None
        span = self._tracer.start_span(
            "lodestar.request",
            context=self.propagator.extract(headers, Context()),
            kind=SpanKind.SERVER,
            start_time=self.wall_ns(at_s),
        )
        return RequestTrace(self, span) if span.is_recording() else None

    def _may_be_sampled(self, parent: str | None) -> bool:
        """The sampler's own answer, before the SDK makes a span, which takes it 40 µs."""
        if parent is not None and self._follows_parent and _PARENT.fullmatch(parent):
            return parent[-1] in _SAMPLED_FLAGS
        trace_id = self._ids.draw()
        drawn = self._sampler.should_sample(None, trace_id, "lodestar.request")
        return drawn.decision is not Sampling.DROP

    def stop(self) -> None:
        """Send what is left; it may take as long as the exporter's timeout."""
        self._provider.shutdown()

    def wall_ns(self, at_s: float) -> int:
        """The time of *at_s*, monotonic seconds."""
        return time.time_ns() - int((time.monotonic() - at_s) * _NS)

    def tell(
        self, name: str, parent: Context, began_at_s: float, at_s: float, said: Mapping[str, Any]
    ) -> Span:
        """A whole span."""
        span = self._tracer.start_span(
            name, context=parent, start_time=self.wall_ns(began_at_s), attributes=said
        )
        span.end(self.wall_ns(at_s))
        return span

    def await_first_token(self, decision_id: str, parent: Context) -> None:
        """Go on with the trace *parent* when the decision's first token comes."""
        self._awaiting[decision_id] = parent
        if len(self._awaiting) > MAX_OPEN:
            self._awaiting.popitem(last=False)

    # -- what routers report -------------------------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """See `RouterListener`: the stream tells it, with its times."""

    def first_token(self, decision: Decision, first_token: ObservedFirstToken) -> None:
        """See `RouterListener`."""
        parent = self._awaiting.pop(decision.decision_id, None)
        if parent is not None:
            said = _observed(decision, first_token.served, first_token.ttft_s)
            said["lodestar.learned"] = str(first_token.label)
            self.tell("lodestar.learn", parent, decision.at_s, first_token.at_s, said)

    def ended(self, request: EndedRequest) -> None:
        """See `RouterListener`: of a request whose first token nobody saw."""
        decision, end = request.decision, request.completion
        parent = self._awaiting.pop(decision.decision_id, None)
        if parent is not None:
            said = _observed(decision, request.served, request.ttft_s)
            said |= {"lodestar.learned": str(request.label), "lodestar.outcome": str(end.outcome)}
            span = self._tracer.start_span(
                "lodestar.learn",
                context=parent,
                start_time=self.wall_ns(decision.at_s),
                attributes=said,
            )
            if not request.is_served:
                span.set_status(Status(StatusCode.ERROR, str(end.outcome)))
            span.end(self.wall_ns(end.at_s))


def _asked(decision: Decision) -> dict[str, Any]:
    request = decision.candidates.request
    return {
        "gen_ai.request.model": printable(request.model),
        "lodestar.prompt_tokens": request.prompt_tokens,
        "lodestar.streaming": request.streaming,
    }


def _chosen(decision: Decision) -> dict[str, Any]:
    said = {
        "lodestar.pool": decision.pool,
        "lodestar.policy": decision.policy,
        "lodestar.reason": str(decision.ranking.reason),
        "lodestar.endpoint": decision.address,
        "lodestar.candidates": len(decision.candidates),
        "lodestar.matched_tokens": float(decision.candidates.matched_tokens[decision.chosen]),
    }
    predicted_s = decision.predicted_ttft_s
    return said if predicted_s is None else said | {"lodestar.ttft.predicted_s": predicted_s}


def _observed(decision: Decision, served: str | None, ttft_s: float | None) -> dict[str, Any]:
    said: dict[str, Any] = {"lodestar.endpoint": served or decision.address}
    times = {"predicted_s": decision.predicted_ttft_s, "observed_s": ttft_s}
    return said | {f"lodestar.ttft.{name}": t for name, t in times.items() if t is not None}
