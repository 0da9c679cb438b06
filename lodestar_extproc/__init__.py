"""Lodestar: an Envoy external processor that learns where a request gets its first token."""

__version__ = "0.1.0"
