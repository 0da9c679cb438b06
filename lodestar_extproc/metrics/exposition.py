"""The text that Prometheus reads, in pieces: between two of them others have their turn."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family

MAX_SAMPLES = 256
"""In one piece: about a millisecond. With 512 endpoints a page has ten thousand."""


def pieces(registry: CollectorRegistry) -> Iterator[bytes]:
    """The page of *registry*, of which no piece takes long."""
    for family in registry.collect():
        samples = family.samples
        for start in range(0, max(1, len(samples)), MAX_SAMPLES):
            part = copy.copy(family)
            part.samples = samples[start : start + MAX_SAMPLES]
            text = generate_latest(_Alone(part))
            yield text if start == 0 else _without_comments(text)


class _Alone(CollectorRegistry):
    """Of one family, which is told already."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self._family = family

    def collect(self) -> Iterator[Family]:
        yield self._family


def _without_comments(text: bytes) -> bytes:
    """Without the lines that describe a family: they stand above its first piece."""
    lines = text.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"#"))
