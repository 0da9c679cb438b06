"""metrics_page(): docs/metrics.md, made from the metrics' own declarations."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from lodestar_extproc.metrics import (
    capacity,
    endpoints,
    gains,
    kv_events,
    learning,
    replicas,
    requests,
    streams,
)
from lodestar_extproc.metrics.aliases.alias import Alias
from lodestar_extproc.metrics.aliases.names import REQUEST_ALIASES
from lodestar_extproc.metrics.aliases.pool_names import POOL_ALIASES
from lodestar_extproc.metrics.metric import Metric

_ALIASES = """\
## Under the names of other pickers

With `serve --alias-metrics`, and by `epp` unless `--alias-metrics=false`, the page shows these \
besides, so that boards, alerts and autoscalers made for other endpoint pickers go on.
They cost some ten microseconds a request, and as many series again.
Labels are theirs: `model_name`, `target_model_name`, `priority`, `fairness_id` (always \
`default-flow`), `name` or `inference_pool` for the pool; after 100 models further ones are `other`.

| names | type | what it says |
|---|---|---|
"""
_INTRO = """\
# Metrics

<!-- Written by `python -m lodestar_extproc.metrics`. Change the declarations, not this page. -->

The admin server shows them at `/metrics`, in Prometheus's text format.
The state of endpoints and learners is read when it is asked for; a value that is unknown is left \
out, never shown as 0.
Series of endpoints that have left the pool disappear.
Prometheus's own `process_*` metrics (CPU, memory, open files) are there too.
Who asks for OpenMetrics (`Accept: application/openmetrics-text`), as Prometheus does, gets \
exemplars besides: beside the buckets of `lodestar_ttft_seconds`, \
`lodestar_predicted_ttft_seconds` and `lodestar_decision_seconds` the id of the last decision \
that was counted there, which `lodestar-extproc explain` takes.
Prometheus keeps them with `--enable-feature=exemplar-storage`.
"""
_SECTIONS: tuple[tuple[str, ModuleType], ...] = (
    ("Requests", requests),
    ("Endpoints", endpoints),
    ("What engines tell of their caches", kv_events),
    ("Learning", learning),
    ("What is gained", gains),
    ("What can still come", capacity),
    ("The streams and the process", streams),
    ("Other replicas", replicas),
)


def metrics_of(module: ModuleType) -> Iterator[Metric]:
    """The metrics that *module* declares, in its order."""
    return (value for value in vars(module).values() if isinstance(value, Metric))


def all_metrics() -> tuple[Metric, ...]:
    """Every metric there is, less those of the process."""
    return tuple(metric for _, module in _SECTIONS for metric in metrics_of(module))


def metrics_page() -> str:
    """The page, in Markdown."""
    parts = [_INTRO]
    for title, module in _SECTIONS:
        rows = [_row(metric) for metric in metrics_of(module)]
        head = "| metric | type | labels | what it says | when it moves |\n|---|---|---|---|---|"
        parts.append("\n".join((f"## {title}\n", head, *rows, "")))
    parts.append(_ALIASES + "".join(map(_alias_row, (*REQUEST_ALIASES, *POOL_ALIASES))))
    return "\n".join(parts)


def _alias_row(alias: Alias) -> str:
    named = ", ".join(f"`{name}`" for name in alias.names)
    return f"| {named} | {alias.metric.kind} | {alias.metric.text} |\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    text, action = metric.text.replace("|", "\\|"), metric.action.replace("|", "\\|")
    return f"| `{metric.name}` | {metric.kind} | {labels} | {text} | {action} |"
