"""A request that is not sampled costs next to nothing, and one without tracing nothing at all."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra tracing")

from lodestar_extproc.tracing.request_traces import RequestTraces

MOST_S = 20e-6
UNSAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


def cost_s(traces: RequestTraces, headers: dict[str, str]) -> float:
    """The least of many tries: others run beside."""

    def once() -> float:
        began_at_s = time.perf_counter()
        for _ in range(100):
            assert traces.begin(headers, 1.0) is None
        return (time.perf_counter() - began_at_s) / 100

    return min(once() for _ in range(30))


def test_a_request_whose_trace_is_not_sampled_costs_less_than_20_microseconds():
    assert cost_s(RequestTraces(), UNSAMPLED) < MOST_S


@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off"])
@pytest.mark.parametrize("headers", [{}, UNSAMPLED])
def test_a_sampler_that_takes_nothing_costs_less_than_20_microseconds(
    monkeypatch, sampler, headers
):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)

    assert cost_s(RequestTraces(), headers) < MOST_S


def test_half_of_the_requests_are_sampled_where_half_are_asked_for(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    traces = RequestTraces()
    taken = sum(traces.begin({}, 1.0) is not None for _ in range(2000))

    assert 800 < taken < 1200
