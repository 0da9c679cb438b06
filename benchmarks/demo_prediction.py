"""The demo in virtual time, beside what it measured in real time through the real Envoy.

    lodestar-extproc demo --json out/demo.json
    python benchmarks/demo_prediction.py out/demo.json

The same arrivals, block for block, the same engines and policies; no HTTP, no gRPC, no Envoy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from virtual_chats import VirtualChats

from lodestar_extproc.evaluation.chats import ChatMix, Chats
from lodestar_extproc.evaluation.clairvoyant import Oracle
from lodestar_extproc.evaluation.contenders import parse_contender
from lodestar_extproc.evaluation.figures import Figures, Quality, measure
from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.cluster import VirtualCluster
from lodestar_extproc.simulator.machine import new_machine

BASELINE, SUBJECT = "prefix_affinity_token_load", "learned"
FIGURES = ("ttft_mean_s", "ttft_p50_s", "ttft_p99_s", "e2e_mean_s")


def predict(policy: str, accelerators: Sequence[str], chats: Chats, seed: int) -> Figures:
    """What *policy* would measure on engines on *accelerators*, from cold, over the whole run."""
    specs = [ACCELERATORS[name] for name in accelerators]
    machines = [new_machine(i, spec, seed + i) for i, spec in enumerate(specs)]
    router = parse_contender(policy).router(machines, Oracle(), seed)
    workload = VirtualChats(chats)
    n_requests = sum(1 for _ in workload)
    records = VirtualCluster(machines, [router], seed=seed).run(workload, n_requests)
    return measure(records, 0.0, Quality())


def rows(demo: dict[str, Any]) -> list[list[str]]:
    """Each policy, and the subject over the baseline, in real and in virtual time."""
    mix = ChatMix(rate_per_s=demo["rate_per_s"])
    chats = Chats(mix, demo["seed"], demo["duration_s"])
    real = demo["policies"]
    virtual = {p: predict(p, demo["fleet"], chats, demo["seed"]) for p in real}
    found = []
    for policy, measured in real.items():
        pairs = [(measured[f], getattr(virtual[policy], f)) for f in FIGURES]
        found.append([policy, *(f"{a:.3f} / {b:.3f}" for a, b in pairs)])
    if {BASELINE, SUBJECT} <= set(real):
        over = [
            (
                real[SUBJECT][f] / real[BASELINE][f],
                getattr(virtual[SUBJECT], f) / getattr(virtual[BASELINE], f),
            )
            for f in FIGURES
        ]
        found.append([f"{SUBJECT} over {BASELINE}", *(f"{a:.2f} / {b:.2f}" for a, b in over)])
        found.append(["virtual over real, of that", *(f"{b / a:.2f}" for a, b in over)])
    return found


def main() -> None:
    """Read the demo's result and print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path, help="what `lodestar-extproc demo --json` wrote")
    options = parser.parse_args()
    table = Table(title="real / virtual time, seconds")
    for name in ("policy", *FIGURES):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for row in rows(orjson.loads(options.demo.read_bytes())):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
