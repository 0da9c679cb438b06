"""Watch: what Lodestar says of itself while a policy runs, asked for once a second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from lodestar_extproc.decision import Reason

POLL_S = 1.0  # the admin page holds 256 decisions, more than come in a second
BY_MODEL = (Reason.MODEL, Reason.EXPLORATION)


@dataclass(slots=True)
class Watch:
    """The last answers of one admin server.

    Attributes:
        endpoints: as `/endpoints` lists them.
        decisions: the last, newest first, as `/decisions` lists them.
        learner: what was learned, in numbers.
    """

    admin_url: str
    endpoints: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    learner: dict[str, Any] = field(default_factory=dict)

    async def run(self) -> None:
        """Ask until cancelled; an answer that does not come is asked for again."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
            while True:
                try:
                    state = await self._get(session, "/endpoints")
                    self.decisions = (await self._get(session, "/decisions?limit=200"))["decisions"]
                except (aiohttp.ClientError, OSError, TimeoutError):
                    pass
                else:
                    pool = state["pools"][0]
                    self.endpoints, self.learner = pool["endpoints"], pool["learner"]
                await asyncio.sleep(POLL_S)

    async def model_share(self) -> float | None:
        """Share of the decisions after burn-in that the model made; None without any."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.admin_url}/metrics") as response,
        ):
            return model_share(await response.text())

    async def _get(self, session: aiohttp.ClientSession, path: str) -> Any:
        async with session.get(self.admin_url + path) as response:
            return orjson.loads(await response.read())


def model_share(page: str) -> float | None:
    """From our own metric page: see `Watch.model_share`."""
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        if family.name == "lodestar_decisions":
            for sample in family.samples:
                reason = sample.labels["reason"]
                counts[reason] = counts.get(reason, 0.0) + sample.value
    after_burn_in = sum(n for reason, n in counts.items() if reason != Reason.BURN_IN)
    if after_burn_in == 0:
        return None
    return sum(counts.get(reason, 0.0) for reason in BY_MODEL) / after_burn_in
