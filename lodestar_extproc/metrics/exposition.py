"""The text that Prometheus reads, in pieces: between two of them others have their turn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family

MAX_SAMPLES = 256
"""In one piece: about a millisecond. With 512 endpoints a page has ten thousand."""


Encoder = Callable[[CollectorRegistry], bytes]
_END = b"# EOF\n"  # of a page in OpenMetrics


def page_in_form(registry: CollectorRegistry, accept: str) -> tuple[str, Iterator[bytes]]:
    """Content type and pieces of the page, in the form that the header *accept* asks for.

    OpenMetrics has exemplars: decision ids, beside the buckets that they were counted in.
    """
    encode, content_type = choose_encoder(accept)
    return content_type, _pieces(registry, encode)


def _pieces(registry: CollectorRegistry, encode: Encoder) -> Iterator[bytes]:
    ended = False
    for family in registry.collect():
        samples = family.samples
        for start in range(0, max(1, len(samples)), MAX_SAMPLES):
            part = copy.copy(family)
            part.samples = samples[start : start + MAX_SAMPLES]
            text = encode(_Alone(part))
            ended = ended or text.endswith(_END)
            text = text.removesuffix(_END)
            yield text if start == 0 else _without_comments(text)
    if ended:
        yield _END


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
