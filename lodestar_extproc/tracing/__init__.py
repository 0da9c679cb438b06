"""Spans for OpenTelemetry: what a request's trace says of us. Needs the extra `tracing`."""
