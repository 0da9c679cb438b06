"""Metrics about ourselves, for Prometheus."""

from lodestar_extproc.metrics.recorder import CONTENT_TYPE, Metrics

__all__ = ["CONTENT_TYPE", "Metrics"]
