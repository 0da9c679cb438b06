"""metrics_page(): docs/metrics.md, made from the metrics' own declarations."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from lodestar_extproc.metrics import endpoints, gains, learning, replicas, requests, streams
from lodestar_extproc.metrics.metric import Metric

_INTRO = """\
# Metrics

<!-- Written by `python -m lodestar_extproc.metrics`. Change the declarations, not this page. -->

The admin server shows them at `/metrics`, in Prometheus's text format.
The state of endpoints and learners is read when it is asked for; a value that is unknown is left \
out, never shown as 0.
Series of endpoints that have left the pool disappear.
Prometheus's own `process_*` metrics (CPU, memory, open files) are there too.
"""
_SECTIONS: tuple[tuple[str, ModuleType], ...] = (
    ("Requests", requests),
    ("Endpoints", endpoints),
    ("Learning", learning),
    ("What is gained", gains),
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
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    text, action = metric.text.replace("|", "\\|"), metric.action.replace("|", "\\|")
    return f"| `{metric.name}` | {metric.kind} | {labels} | {text} | {action} |"
