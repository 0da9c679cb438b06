"""Whether the learned policy learns where a mesh shows it only what passes through it.

The demo's fleet, load and processes, with Envoy as Istio sets it up for an InferencePool
(`envoy/variants/full_duplex.yaml`): full duplex both ways, no observer, no access log. Policies run
one after another on the same arrivals, each from cold; with --rounds several times, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from shipped_envoy import shipped

from lodestar_extproc.config.settings import POLICIES
from lodestar_extproc.demo import screen
from lodestar_extproc.demo.compare import DemoPlan, Progress, compare, known_policies
from lodestar_extproc.demo.stack import FleetPlan, sorted_kinds
from lodestar_extproc.evaluation.load import LoadRecord
from lodestar_extproc.evaluation.summary import summarise
from lodestar_extproc.simulator.instances import parse_instances

MESH = "variants/full_duplex.yaml"


def one_round(options: argparse.Namespace, seed: int, folder: Path) -> Progress:
    """Every policy once."""
    kinds = [spec.accelerator for spec in parse_instances(options.fleet)]
    plan = DemoPlan(
        policies=known_policies(options.policies, POLICIES),
        fleet=FleetPlan(tuple(sorted_kinds(kinds)), seed),
        duration_s=options.duration,
        rate_per_s=options.rate,
        seed=seed,
        folder=folder,
        configure=shipped(options.envoy),
    )
    progress = Progress()
    asyncio.run(compare(plan, progress, lambda: None))
    return progress


def result_of(records: list[LoadRecord], skip_s: float) -> dict[str, float | int]:
    """Of all requests, and of those sent after the first *skip_s* seconds."""
    whole, later = summarise(records), summarise([r for r in records if r.at_s >= skip_s])
    return {
        "requests": whole.requests,
        "failed": whole.failed,
        "ttft_mean_s": whole.ttft_mean_s,
        "ttft_p99_s": whole.ttft_p99_s,
        "later_ttft_mean_s": later.ttft_mean_s,
        "later_ttft_p99_s": later.ttft_p99_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", default="prefix_affinity_token_load,learned")
    parser.add_argument("--fleet", default="h100:1,l20:1,a30:2", help="as in the demo")
    parser.add_argument("--rate", type=float, default=16.0, help="requests a second")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of load a policy")
    parser.add_argument("--skip", type=float, default=20.0, help="seconds to learn in")
    parser.add_argument("--rounds", type=int, default=1, help="each with a seed of its own")
    parser.add_argument("--envoy", default=MESH, help="file below envoy/")
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    console, rounds, failed = Console(width=120), [], 0
    for seed in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory(prefix="lodestar-mesh-") as folder:
            progress = one_round(options, seed, Path(folder))
        console.print(screen.comparison(progress.summaries))
        rounds.append({p: result_of(r, options.skip) for p, r in progress.records.items()})
        rounds[-1]["model_share"] = progress.model_share
        failed += sum(summary.failed for summary in progress.summaries.values())
    show_later(rounds, options.skip, console)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=2) + "\n")
    return 1 if failed else 0


def show_later(rounds: list[dict[str, Any]], skip_s: float, console: Console) -> None:
    """The means over the rounds, once there was time to learn."""
    for policy in (name for name in rounds[0] if name != "model_share"):
        each = [(r[policy]["later_ttft_mean_s"], r[policy]["later_ttft_p99_s"]) for r in rounds]
        mean_s, p99_s = np.mean(each, axis=0)
        console.print(f"{policy} after {skip_s:g} s: mean TTFT {mean_s:.3f} s, P99 {p99_s:.3f} s")
    shares = [f"{r['model_share']:.0%}" for r in rounds if r["model_share"] is not None]
    console.print(f"the model's share of the decisions after burn-in: {', '.join(shares)}")


if __name__ == "__main__":
    raise SystemExit(main())
