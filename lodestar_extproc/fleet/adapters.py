"""AdapterTable: which LoRA adapters each engine computes, and what loading another takes there.

It knows what engines report; not which requests are in flight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lodestar_extproc.endpoint import Adapters, Endpoint, FloatArray

RUNNING, ROOM, WAITING, FULL = 0.0, 0.2, 0.4, 1.0
"""Effort of serving an adapter, 0 to 1: 1 less llm-d's lora-affinity scores (1, 0.8, 0.6, 0)."""


class AdapterTable:
    """What engines last said of their adapters, by address."""

    def __init__(self) -> None:
        self._reported: dict[str, Adapters] = {}

    def report(self, address: str, adapters: Adapters | None) -> None:
        """The engine at *address* said so; None where it says nothing of adapters."""
        if adapters is None:
            self._reported.pop(address, None)
        else:
            self._reported[address] = adapters

    def forget(self, address: str) -> None:
        """It is no member any more."""
        self._reported.pop(address, None)

    def effort(self, model: str, endpoints: Sequence[Endpoint]) -> FloatArray | None:
        """How much has to be done on each endpoint to serve *model*, 0 to 1, [n].

        None where no engine reports it as an adapter: then it is a base model, or new to all.
        """
        said = self._reported.values()
        if not said or not any(model in each.running or model in each.waiting for each in said):
            return None
        return np.array([_effort(model, self._reported.get(e.address)) for e in endpoints])


def _effort(model: str, said: Adapters | None) -> float:
    if said is None:
        return FULL
    if model in said.running:
        return RUNNING
    if len(said.running | said.waiting) < said.slots:
        return ROOM
    return WAITING if model in said.waiting else FULL
