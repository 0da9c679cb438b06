"""Metrics about ourselves, for Prometheus."""

from lodestar_extproc.metrics.recorder import Metrics

__all__ = ["Metrics"]
