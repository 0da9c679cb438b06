"""The command `demo`: see the whole thing work, and compare policies, on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar_extproc.commands.option_values import file_to_write, folder_to_fill
from lodestar_extproc.commands.say import complain

DURATION_S, QUICK_DURATION_S = 40.0, 10.0  # of load on each policy; 40 s give a P99 of 640 requests

Json = Annotated[Path | None, typer.Option(help="Write the result here.", callback=file_to_write)]
Out = Annotated[
    Path | None, typer.Option(help="Keep configurations and logs here.", callback=folder_to_fill)
]


def demo(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute in all.")] = False,
    duration: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds of load for each policy.", show_default="40, quick 10"),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests a second.")] = 16.0,
    fleet: Annotated[
        str, typer.Option(help="Simulated engines, as accelerator:number.")
    ] = "h100:1,l20:1,a30:2",
    policies: Annotated[
        str | None,
        typer.Option(
            help="Policies to compare, with commas: any of docs/settings.md.",
            show_default="round_robin, least_request, prefix_affinity_token_load, learned; "
            "quick: without least_request",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same arrivals.")] = 1,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of Envoy; 0 for any.")] = 0,
    engine_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the first engine; 0 for any.")
    ] = 0,
    json: Json = None,
    out: Out = None,
) -> None:
    """Run real Envoy, Lodestar and a mixed fleet of simulated engines, and compare policies.

    For each policy everything starts cold: engines that behave like vLLM on the accelerators
    named, the real Envoy, and Lodestar as its external processor. The same arrivals are sent
    through Envoy over HTTP: conversations, long documents, short questions, all streamed.

    Exit status: 0, or 1 when a request failed or a program did not start; what ran is shown
    and written all the same.

    Examples:

        lodestar-extproc demo --quick

        lodestar-extproc demo --fleet a30:4,v100:4 --rate 6 --duration 60 --json out.json

        lodestar-extproc demo --policies lmetric,learned --out out/
    """
    try:
        from lodestar_extproc.demo.main import run_demo  # noqa: PLC0415  (an optional extra)
    except ModuleNotFoundError as error:
        complain(f"error: {error}; pip install 'lodestar-extproc[demo]'")
        raise typer.Exit(1) from None
    try:
        status = run_demo(
            policies=policies or _default_policies(quick=quick),
            fleet=fleet,
            duration_s=duration or (QUICK_DURATION_S if quick else DURATION_S),
            rate_per_s=rate,
            seed=seed,
            ports=(port, engine_port),
            json=json,
            out=out,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(status)


def _default_policies(*, quick: bool) -> str:
    middle = "" if quick else "least_request,"
    return f"round_robin,{middle}prefix_affinity_token_load,learned"
