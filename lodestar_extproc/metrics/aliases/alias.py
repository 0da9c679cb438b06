"""Alias: one fact, and the names under which others show it.

There are three spellings in use, and boards, alerts and autoscaling guides of each:

    inference_model_*, inference_objective_*, inference_pool_*, inference_extension_*
        https://gateway-api-inference-extension.sigs.k8s.io/guides/metrics-and-observability/
    llm_d_router_epp_*
        https://github.com/llm-d/llm-d-router/blob/main/pkg/epp/metrics/llm_d_router_metrics.go
    llm_d_epp_*
        https://github.com/llm-d/llm-d/blob/main/docs/operations/observability/metrics.md
"""

from __future__ import annotations

from dataclasses import dataclass

from lodestar_extproc.metrics.metric import Metric, MetricKind

OBJECTIVE = ("inference_model_", "inference_objective_")
POOL = ("inference_pool_",)
EXTENSION = ("inference_extension_",)
ROUTER, EPP = "llm_d_router_epp_", "llm_d_epp_"


@dataclass(frozen=True, slots=True)
class Alias:
    """One fact under the names of others.

    Attributes:
        metric: under the first of its names.
        names: all of them; a counter's end in `_total`.
    """

    metric: Metric
    names: tuple[str, ...]


def alias(
    kind: MetricKind,
    names: tuple[str, ...],
    labels: tuple[str, ...],
    text: str,
    buckets: tuple[float, ...] = (),
) -> Alias:
    return Alias(Metric(names[0], kind, labels, text, "", buckets), names)


def named(
    theirs: tuple[str, ...], suffix: str, *, router: str | None = None, epp: str | None = None
) -> tuple[str, ...]:
    """*suffix* under every prefix, and what llm-d calls it otherwise."""
    names = [prefix + suffix for prefix in (*theirs, ROUTER)]
    names += [ROUTER + router] if router else []
    return (*names, EPP + (epp or suffix))


COUNTER, GAUGE, HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM
