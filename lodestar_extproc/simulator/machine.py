"""Machine: one engine at one address of a virtual cluster, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.simulator.accelerators import EngineSpec
from lodestar_extproc.simulator.engine import Engine


@dataclass(slots=True)
class Machine:
    """One engine at one address.

    Attributes:
        refusing: answers nothing; a request for it goes to the next candidate.
    """

    endpoint: Endpoint
    engine: Engine
    refusing: bool = False

    def restart(self, seed: int) -> None:
        """A new engine of the same kind, with nothing in its cache."""
        self.engine.restart(seed)
        self.refusing = False


def new_machine(number: int, spec: EngineSpec, seed: int) -> Machine:
    """Engine *number* of a fleet, at an address of its own, as its metrics would describe it."""
    endpoint = Endpoint(
        address=f"10.0.{number // 250}.{number % 250 + 1}:8000",
        accelerator=spec.accelerator,
        kv_capacity_tokens=float(spec.kv_tokens),
        token_budget=float(min(spec.token_budget, 8192)),
        prefix_caching=spec.prefix_caching,
    )
    return Machine(endpoint, Engine(spec, seed))
