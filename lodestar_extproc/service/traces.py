"""new_traces(): the traces of requests, where they are asked for and can be had."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_extproc.tracing.request_traces import RequestTraces


def tracing_is_installed() -> bool:
    """Whether the extra `tracing` is."""
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None


def new_traces(*, wanted: bool) -> RequestTraces | None:
    """None where none are *wanted*.

    Raises:
        ValueError: the extra is not installed, or the exporter is asked for what it cannot do.
    """
    if not wanted:
        return None
    if not tracing_is_installed():
        raise ValueError(
            "tracing needs OpenTelemetry's SDK, which is not installed: "
            "pip install 'lodestar-extproc[tracing]'"
        )
    from lodestar_extproc.tracing.exporter import otlp_exporter  # noqa: PLC0415
    from lodestar_extproc.tracing.request_traces import RequestTraces  # noqa: PLC0415

    return RequestTraces(otlp_exporter())
