"""OpenLoop: requests that come at their times, whatever becomes of the answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from lodestar_extproc.simulator.arrival import VirtualRequest


class OpenLoop:
    """A list of requests, by time."""

    min_think_s = math.inf

    def __init__(self, requests: Iterable[VirtualRequest]) -> None:
        self.requests = tuple(requests)

    def __iter__(self) -> Iterator[VirtualRequest]:
        return iter(self.requests)

    def next_turns(
        self,
        request: VirtualRequest,  # noqa: ARG002
        ended_at_s: float,  # noqa: ARG002
    ) -> tuple[VirtualRequest, ...]:
        """No request waits for another."""
        return ()


def poisson(
    prompts: Iterable[VirtualRequest], rate_per_s: float, rng: np.random.Generator
) -> OpenLoop:
    """*prompts* at the times of a Poisson process."""
    at_s, placed = 0.0, []
    for prompt in prompts:
        at_s += float(rng.exponential(1.0 / rate_per_s))
        placed.append(replace(prompt, at_s=at_s))
    return OpenLoop(placed)
