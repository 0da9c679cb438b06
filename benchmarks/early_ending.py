"""`lodestar-extproc`, but its full duplex streams end early; no way to run it: answers get cut.

    python benchmarks/early_ending.py request|first-token serve ...

It shows what `response_cost.py` measures: what giving every answer back to its end costs.
"""

from __future__ import annotations

import sys

from lodestar_extproc.commands.cli import app
from lodestar_extproc.extproc import server
from lodestar_extproc.extproc.exchange import Exchange
from lodestar_extproc.extproc.stream_outcome import StreamOutcome

AFTER = sys.argv.pop(1)


class EarlyEnding(Exchange):
    @property
    def done(self) -> bool:
        if super().done or self.outcome is not StreamOutcome.ROUTED:
            return super().done
        seen = self._observation
        return AFTER == "request" or (seen is not None and seen._told_first_token)  # noqa: SLF001


server.Exchange = EarlyEnding  # type: ignore[misc]
app()
