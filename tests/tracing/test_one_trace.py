"""One trace from the client through Envoy and us to the engine, told to a real receiver of OTLP."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra tracing")

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from engine_stack import engine_stack
from envoy_process import patient
from lodestar_extproc.tracing.request_traces import RequestTraces
from otlp_receiver import HAS_COLLECTOR, a_collector, otlp_receiver
from stub_engine import StubEngine
from waiting import until

PATH = "/v1/completions"
BODY = json.dumps({"model": "llama", "prompt": "hi " * 400, "stream": True}).encode()
TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CLIENT}-01", "tracestate": "rojo=00f067aa0ba902b7"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{CLIENT}-00"}
OURS = ["lodestar.decide", "lodestar.learn", "lodestar.read", "lodestar.request"]
pytestmark = pytest.mark.long


@asynccontextmanager
async def a_stack(folder, url: str, edit=patient, **settings):
    """The stack, whose spans are sent to *url*, and its engines."""
    engines = [StubEngine("a"), StubEngine("b")]
    traces = RequestTraces(OTLPSpanExporter(endpoint=f"{url}/v1/traces"))
    try:
        async with engine_stack(folder, engines, edit=edit, traces=traces, **settings) as stack:
            yield stack, engines, traces
    finally:
        await asyncio.to_thread(traces.stop)


async def flushed(traces: RequestTraces) -> None:
    """Sent; not in our loop, in which it is received."""
    await asyncio.to_thread(traces._provider.force_flush)


def seen_by(engines: list[StubEngine]) -> dict[str, str]:
    """Headers of the last request that one of them got."""
    return [h for engine in engines for path, h, _ in engine.seen if path == PATH][-1]


@pytest.mark.parametrize(
    "through",
    [
        "receiver",
        pytest.param(
            "collector",
            marks=pytest.mark.skipif(not HAS_COLLECTOR, reason="needs otelcol: make collector"),
        ),
    ],
)
async def test_a_request_is_one_trace_from_client_to_engine(tmp_path, through):
    async with otlp_receiver() as receiver:
        if through == "collector":
            async with a_collector(receiver, tmp_path) as url:
                await check_one_trace(tmp_path, receiver, url)
        else:
            await check_one_trace(tmp_path, receiver, receiver.url)


async def check_one_trace(folder, receiver, url):
    async with a_stack(folder, url) as (stack, engines, traces):
        decision = await stack.decided(PATH, BODY, **SAMPLED)
        await flushed(traces)
        await until(lambda: len(receiver.spans) >= len(OURS))
        spans = {span.name: span for span in receiver.spans}
        version, trace_id, parent_id, flags = seen_by(engines)["traceparent"].split("-")

    assert sorted(spans) == OURS
    assert {span.trace_id for span in spans.values()} == {TRACE} == {trace_id}
    request = spans["lodestar.request"]
    assert request.parent_id == CLIENT
    assert parent_id == request.span_id
    assert {spans[name].parent_id for name in OURS[:3]} == {request.span_id}
    assert (version, flags) == ("00", "01")
    assert seen_by(engines)["tracestate"] == SAMPLED["tracestate"]
    assert request.attributes["lodestar.decision_id"] == decision.decision_id
    assert spans["lodestar.decide"].attributes["lodestar.endpoint"] == decision.address
    assert spans["lodestar.learn"].attributes["lodestar.ttft.observed_s"] > 0
    assert spans["lodestar.read"].attributes["gen_ai.request.model"] == "llama"
    assert {span.service for span in spans.values()} == {"lodestar-extproc"}


async def test_what_was_predicted_stands_beside_what_was_observed(tmp_path):
    learned = {"policy": "learned", "burn_in_samples": 1}
    async with (
        otlp_receiver() as receiver,
        a_stack(tmp_path, receiver.url, **learned) as (stack, _, traces),
    ):
        for _ in range(8):
            await stack.decided(PATH, BODY, **SAMPLED)
        await flushed(traces)
        await until(lambda: len(receiver.of("lodestar.learn")) == 8)

        learned = receiver.of("lodestar.learn")[-1]
        assert learned.attributes["lodestar.ttft.predicted_s"] > 0
        observed_s = learned.attributes["lodestar.ttft.observed_s"]
        assert observed_s == pytest.approx(learned.took_s, abs=1e-3)


async def test_a_request_that_is_not_sampled_goes_on_as_it_came(tmp_path):
    async with (
        otlp_receiver() as receiver,
        a_stack(tmp_path, receiver.url) as (stack, engines, traces),
    ):
        await stack.decided(PATH, BODY, **UNSAMPLED)
        await flushed(traces)

        assert seen_by(engines)["traceparent"] == UNSAMPLED["traceparent"]
        assert not receiver.spans
        assert not traces._awaiting


@pytest.mark.parametrize("sent", ["nonsense", "00-0-0-01", "00-" + "0" * 32 + f"-{CLIENT}-01", "1"])
async def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(tmp_path, sent):
    async with (
        otlp_receiver() as receiver,
        a_stack(tmp_path, receiver.url) as (stack, engines, traces),
    ):
        await stack.decided(PATH, BODY, traceparent=sent)
        await flushed(traces)
        await until(lambda: receiver.of("lodestar.request"))

        (request,) = receiver.of("lodestar.request")
        assert request.parent_id == ""
        assert request.trace_id in seen_by(engines)["traceparent"]


def traced_by_envoy(url: str):
    """Envoy's own tracer, which tells the same receiver."""

    def edit(config) -> None:
        patient(config)
        host, port = url.removeprefix("http://").split(":")
        address = {"socket_address": {"address": host, "port_value": int(port)}}
        resources = config["static_resources"]
        resources["clusters"].append(
            {
                "name": "collector",
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": "collector",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                },
            }
        )
        uri = {"uri": f"{url}/v1/traces", "cluster": "collector", "timeout": "1s"}
        tracer = {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "http_service": {"http_uri": uri},
            "service_name": "envoy",
        }
        provider = {"name": "envoy.tracers.opentelemetry", "typed_config": tracer}
        manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["tracing"] = {"provider": provider}

    return edit


async def test_envoys_own_spans_are_in_the_same_trace(tmp_path):
    async with otlp_receiver() as receiver:
        edit = traced_by_envoy(receiver.url)
        async with a_stack(tmp_path, receiver.url, edit) as (stack, engines, traces):
            await stack.decided(PATH, BODY, **SAMPLED)
            await flushed(traces)
            await until(lambda: {span.service for span in receiver.spans} >= {"envoy"})
            await until(lambda: receiver.of("lodestar.request"))

            assert {span.trace_id for span in receiver.spans} == {TRACE}
            assert TRACE in seen_by(engines)["traceparent"]
            (request,) = receiver.of("lodestar.request")
            told = {span.span_id for span in receiver.spans if span.service == "envoy"}
            assert request.parent_id in told | {CLIENT}
