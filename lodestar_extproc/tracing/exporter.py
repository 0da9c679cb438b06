"""otlp_exporter(): sends spans by OTLP, where the SDK's own variables say."""

from __future__ import annotations

import os

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter

PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP = "http/protobuf"


def otlp_exporter() -> SpanExporter:
    """By HTTP, to OTEL_EXPORTER_OTLP_ENDPOINT: http://localhost:4318 where it says nothing.

    Raises:
        ValueError: another protocol is asked for.
    """
    for name in PROTOCOLS:
        asked = os.environ.get(name, HTTP)
        if asked != HTTP:
            raise ValueError(f"{name}={asked}: spans are sent by {HTTP} alone, port 4318 as a rule")
    return OTLPSpanExporter()
