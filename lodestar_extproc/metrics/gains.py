"""What the decisions gain: declared here, read of the pools whenever Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from lodestar_extproc.gain.compared import Gain
from lodestar_extproc.metrics.metric import gauge

GAIN_RATIO = gauge(
    "lodestar_gain_ttft_ratio",
    ("pool", "policy", "role", "bound"),
    "Mean TTFT of what was decided over what `policy` is estimated to have given, `estimate` and "
    "the `low` and `high` end of its 95 % interval; absent where it cannot be told. `role` is "
    "`fallback`, `shadow`, or `decided` where Envoy does not follow the decisions: then it is "
    "what happens over what was decided.",
    "`low` above 1 for long: the other policy would serve better; see `explain` and the page.",
)
GAIN_KNOWN = gauge(
    "lodestar_gain_known",
    ("pool", "policy", "role"),
    "1 where a difference can be estimated, else 0.",
    "0 for long: see `/gain` for the reason.",
)
GAIN_REQUESTS = gauge(
    "lodestar_gain_compared_requests",
    ("pool", "policy", "role"),
    "Requests behind the estimate, the last 2000 at most.",
    "Standing still under load: first tokens are not seen, or nothing is predicted.",
)


class GainCollector(Collector):
    """Asks for the gains of every pool as they are."""

    def __init__(self, gains: Callable[[], Mapping[str, Sequence[Gain]]]) -> None:
        self._gains = gains

    def describe(self) -> Iterable[Family]:
        """Describe nothing beforehand: what is compared depends on settings."""
        return ()

    def collect(self) -> Iterator[Family]:
        """One family for each metric."""
        ratio = GaugeMetricFamily(GAIN_RATIO.name, GAIN_RATIO.text, labels=GAIN_RATIO.labels)
        known = GaugeMetricFamily(GAIN_KNOWN.name, GAIN_KNOWN.text, labels=GAIN_KNOWN.labels)
        requests = GaugeMetricFamily(
            GAIN_REQUESTS.name, GAIN_REQUESTS.text, labels=GAIN_REQUESTS.labels
        )
        for pool, gains in self._gains().items():
            for gain in gains:
                key = (pool, gain.policy, gain.role)
                bounds = (("estimate", gain.ratio), ("low", gain.low), ("high", gain.high))
                for bound, value in bounds:
                    if value is not None:
                        ratio.add_metric((*key, bound), value)
                known.add_metric(key, float(gain.ratio is not None))
                requests.add_metric(key, gain.requests)
        yield from (ratio, known, requests)
