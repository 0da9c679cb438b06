"""The command `bench`: policies compared in virtual time, on the same arrivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar_extproc.commands.option_values import file_to_write, folder_to_fill
from lodestar_extproc.commands.say import complain
from lodestar_extproc.evaluation.bench_names import SCENARIO_NAMES, STANDARD_FLEETS, WORKLOADS

DEFAULT_POLICIES = "prefix_cache,prefix_affinity_token_load,lmetric,least_load,learned"

MOST_ROUTERS, MOST_FRAME_MS = 64, 10_000  # beyond any that share a pool

Workloads = Annotated[
    str, typer.Option(help=f"{', '.join(WORKLOADS)}, all, or a file; several with commas.")
]
Fleets = Annotated[
    str, typer.Option(help=f"{', '.join(STANDARD_FLEETS)}, all, or a .yaml file; with commas.")
]
Loads = Annotated[
    str, typer.Option(help="Shares of the rate at which the fleet is saturated, with commas.")
]
Rate = Annotated[float | None, typer.Option(min=0.01, help="Requests a second, not --load.")]
Policies = Annotated[
    str,
    typer.Option(
        help="With commas; learned:predictor=mlp changes a setting.",
        show_default=DEFAULT_POLICIES.replace(",", ", "),
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each cell, on other arrivals.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="The others follow it.")]
Requests = Annotated[
    int | None,
    typer.Option(min=100, help="Of each run.", show_default="400 s of them, 5000 to 14000"),
]
Scenarios = Annotated[str, typer.Option(help=f"{', '.join(SCENARIO_NAMES)}, or all; with commas.")]
Routers = Annotated[
    str | None,
    typer.Option(
        help="Numbers of routers to compare with one, with commas, in place of --scenario."
    ),
]
Share = Annotated[str, typer.Option(help="How routers share: by frames of so long (30ms), or off.")]
Loss = Annotated[float, typer.Option(min=0, max=1, help="Share of the frames that is lost.")]
Traces = Annotated[Path, typer.Option(help="Folder of the public traces.")]
TokensPerHash = Annotated[
    int | None, typer.Option(min=1, help="Tokens a hash id of a Mooncake trace stands for.")
]
WithHindsight = Annotated[
    bool, typer.Option(help="Compare learned decisions with a clairvoyant's: slower.")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one a core")]
Json = Annotated[
    Path | None, typer.Option(help="Write all figures and ratios here.", callback=file_to_write)
]
Report = Annotated[
    Path | None,
    typer.Option(help="Write tables and plots into this folder.", callback=folder_to_fill),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        help="Keep ended trials here; run again, it goes on from them.", callback=folder_to_fill
    ),
]


def bench(  # noqa: PLR0913  (one argument an option)
    *,
    workload: Workloads = "prefix50",
    fleet: Fleets = "a30x8",
    load: Loads = "0.8",
    rate: Rate = None,
    policies: Policies = DEFAULT_POLICIES,
    seeds: Seeds = 3,
    first_seed: FirstSeed = 1,
    requests: Requests = None,
    scenario: Scenarios = "steady",
    routers: Routers = None,
    share: Share = "30ms",
    loss: Loss = 0.0,
    traces: Traces = Path("traces"),
    tokens_per_hash: TokensPerHash = None,
    hindsight: WithHindsight = False,
    jobs: Jobs = None,
    json: Json = None,
    report: Report = None,
    keep: Keep = None,
) -> None:
    """Compare policies on simulated fleets in virtual time, on the same arrivals.

    The policies and the learner are those of `serve`, told only what Envoy with
    envoy/envoy.yaml tells them. The first learned policy is compared with every other one.

    Examples:

        lodestar-extproc bench

        lodestar-extproc bench --workload all --fleet all --load 0.6,0.8,0.92 --traces DIR

        lodestar-extproc bench --policies lmetric,learned,learned:cost=ttft --json out.json

        lodestar-extproc bench --scenario all --report report/ --keep report/trials

        lodestar-extproc bench --policies learned --routers 1,2,4,8 --share 30ms

        lodestar-extproc bench --workload mine.jsonl --rate 12 --fleet mine.yaml
    """
    # Here, so that other commands need not load numba, River and matplotlib.
    try:
        from lodestar_extproc.evaluation.bench import run_bench  # noqa: PLC0415
        from lodestar_extproc.evaluation.study import Study  # noqa: PLC0415
    except ModuleNotFoundError as error:
        complain(f"error: {error}; pip install 'lodestar-extproc[demo]'")
        raise typer.Exit(1) from None
    try:
        study = Study(
            workloads=_names(workload, WORKLOADS),
            fleets=_names(fleet, STANDARD_FLEETS),
            scenarios=_scenarios(scenario, routers, share, loss),
            contenders=_names(policies, ()),
            seeds=tuple(range(first_seed, first_seed + seeds)),
            traces=traces,
            loads=_loads(load),
            rate_per_s=rate,
            n_requests=requests,
            tokens_per_hash=tokens_per_hash,
            hindsight=hindsight,
        )
        run_bench(study, jobs=jobs, json=json, report=report, keep=keep)
    except OSError as error:
        complain(f"error: {error}")
        raise typer.Exit(1) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _names(text: str, everything: tuple[str, ...]) -> tuple[str, ...]:
    if text == "all" and everything:
        return everything
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _scenarios(text: str, routers: str | None, share: str, loss: float) -> tuple[str, ...]:
    """Those that *text* names, or of so many routers where these are asked for."""
    from lodestar_extproc.evaluation.router_counts import router_scenarios  # noqa: PLC0415

    if routers is None:
        return _names(text, SCENARIO_NAMES)
    return router_scenarios(_counts(routers), _frame_ms(share), loss)


def _loads(text: str) -> tuple[float, ...]:
    try:
        loads = tuple(float(part) for part in text.split(","))
    except ValueError:
        loads = ()
    if not loads or not all(0 < x < 2 for x in loads):
        raise typer.BadParameter(f"{text!r}: wants shares like 0.6,0.8", param_hint="--load")
    return loads


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or not all(0 < n <= MOST_ROUTERS for n in counts):
        raise typer.BadParameter(f"{text!r}: wants numbers like 1,2,4", param_hint="--routers")
    return counts


def _frame_ms(text: str) -> int | None:
    if text == "off":
        return None
    written = text.removesuffix("ms")
    if not written.isdecimal() or not 0 < int(written) <= MOST_FRAME_MS:
        raise typer.BadParameter(f"{text!r}: wants a time like 30ms, or off", param_hint="--share")
    return int(written)
