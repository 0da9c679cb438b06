"""renamed(): one family of metrics, told once more under another name."""

from __future__ import annotations

import copy

from prometheus_client.metrics_core import Metric as Family

TOTAL = "_total"


def renamed(family: Family, name: str) -> Family:
    """*family* as *name*; a counter's ends in `_total`, as its samples do."""
    own = name.removesuffix(TOTAL) if family.type == "counter" else name
    told, before = copy.copy(family), len(family.name)
    told.name = own
    told.samples = [s._replace(name=own + s.name[before:]) for s in family.samples]
    return told
