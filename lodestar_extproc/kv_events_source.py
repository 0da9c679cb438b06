"""KvEventsSource: where an engine tells of its cache."""

from __future__ import annotations

from typing import NamedTuple


class KvEventsSource(NamedTuple):
    """Sockets of ZeroMQ, at the engine.

    Attributes:
        url: it publishes there (PUB).
        replay_url: it says again there what was missed (ROUTER); None where it does not.
        topic: beginning of the topics that are meant; empty for all.
    """

    url: str
    replay_url: str | None = None
    topic: str = ""
