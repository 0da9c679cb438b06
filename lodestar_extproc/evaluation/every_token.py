"""EveryTokenFleet: a fleet that is told every token of every stream.

A default Envoy shows first tokens only, and the fleet estimates how far each answer is. This
one shows what that estimate costs.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lodestar_extproc.config.live_settings import LiveSettings
from lodestar_extproc.endpoint import SNAPSHOT_COLUMNS, Endpoint, FleetSnapshot
from lodestar_extproc.evaluation.clairvoyant import Oracle
from lodestar_extproc.fleet.fleet import Fleet
from lodestar_extproc.request import Subset


class EveryTokenFleet(Fleet):
    """As `Fleet`, with the true context of the decodes."""

    def __init__(self, live: LiveSettings, endpoints: Iterable[Endpoint], oracle: Oracle) -> None:
        super().__init__(live, endpoints)
        self._oracle = oracle

    def snapshot(
        self,
        at_s: float,
        subset: Subset | None = None,
        prompt: int | None = None,
        draw: float = 0.0,
    ) -> FleetSnapshot:
        """The routable endpoints now."""
        estimated = super().snapshot(at_s, subset, prompt, draw)
        exact = [self._oracle.decode_context_tokens(e.address) for e in estimated.endpoints]
        columns = {name: getattr(estimated, name) for name in SNAPSHOT_COLUMNS}
        columns["decode_context_tokens"] = np.array(exact)
        return FleetSnapshot.of(at_s, estimated.endpoints, columns)
