"""`lodestar-extproc simulate`: vLLM-like servers without a GPU, until a signal ends them."""

from __future__ import annotations

from errno import EADDRINUSE
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestar_extproc.commands.say import complain, tell
from lodestar_extproc.simulator.accelerators import ACCELERATORS
from lodestar_extproc.simulator.defaults import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from lodestar_extproc.simulator.accelerators import EngineSpec
    from lodestar_extproc.simulator.instances import ServingOptions
    from lodestar_extproc.simulator.server import SimulatedServer

NOT_INSTALLED, CANNOT_LISTEN = 1, 3  # exit statuses

Instances = Annotated[
    str | None,
    typer.Option(
        help="Several servers on consecutive ports, in one process: a30:3,v100:1.",
        show_default="one of --accelerator",
    ),
]
KvCapacity = Annotated[
    int | None,
    typer.Option(
        help="KV cache of each server, in tokens.",
        min=16,
        show_default="the accelerator's for an 8B model",
    ),
]

Port = Annotated[int, typer.Option(help="Port of the first server; 0 for any.", min=0, max=65_535)]


def simulate(  # noqa: PLR0913  (the command's options)
    *,
    accelerator: Annotated[
        str, typer.Option(help=f"What one server runs on: {', '.join(ACCELERATORS)}.")
    ] = "a30",
    instances: Instances = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 18001,
    model: Annotated[str, typer.Option(help="Name the model is served under.")] = DEFAULT_MODEL,
    speed: Annotated[
        float, typer.Option(help="How many times faster than the accelerator.", min=0.01)
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the noise in step times.", min=0)] = 0,
    kv_capacity: KvCapacity = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            help="Longest prompt and answer together, in tokens.", min=16, show_default="30000"
        ),
    ] = None,
    cache_answers: Annotated[
        bool, typer.Option(help="Whether a chat's next turn hits the answer in the prefix cache.")
    ] = True,
    grace: Annotated[
        float, typer.Option(help="Seconds to finish requests after SIGTERM.", min=0.0)
    ] = 5.0,
) -> None:
    """Serve OpenAI's API from simulated vLLM engines, without a GPU.

    Continuous batching, chunked prefill, prefix cache, queueing and
    preemption follow vLLM; steps take the time they take for Llama-3.1-8B on
    the accelerator. Answers are filler text that depends on the prompt alone
    and always has max_tokens tokens.

    Examples:

      lodestar-extproc simulate

      lodestar-extproc simulate --instances a30:3,v100:1 --port 18001 --speed 4

      curl localhost:18001/v1/completions -H 'content-type: application/json'
      -d '{"model": "llama-3.1-8b", "prompt": "Hello", "max_tokens": 8}'

      curl localhost:18001/fault -d '{"kind": "slow", "factor": 3}'
      (or freeze, 503, reset, drop_mid_stream, error_event, none)
    """
    try:
        # Here, so that other commands need not load numba.
        from lodestar_extproc.simulator.instances import (  # noqa: PLC0415
            ServingOptions,
            parse_instances,
        )

        specs = parse_instances(instances or accelerator, kv_capacity, max_model_len)
    except ModuleNotFoundError as error:
        complain(f"error: {error}; pip install 'lodestar-extproc[simulator]'")
        raise typer.Exit(NOT_INSTALLED) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    options = ServingOptions(host, port, model, speed, seed, cache_answers, grace)
    try:
        _run(_serve_until_signal(specs, options))
    except OSError as error:
        advice = "choose another --port" if error.errno == EADDRINUSE else "see --host and --port"
        complain(f"error: {error}; {advice}")
        raise typer.Exit(CANNOT_LISTEN) from None


async def _serve_until_signal(specs: tuple[EngineSpec, ...], options: ServingOptions) -> None:
    import asyncio  # noqa: PLC0415
    import signal  # noqa: PLC0415

    from lodestar_extproc.simulator.instances import serve_instances  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve_instances(specs, options, stop, _announce)


def _announce(servers: tuple[SimulatedServer, ...]) -> None:
    """Say what was bound: whoever asked for any port reads it here."""
    for server in servers:
        tell(f"{server.spec.accelerator:8} http://{server.address}")


def _run(main: Coroutine[Any, Any, None]) -> None:
    import asyncio  # noqa: PLC0415

    try:
        import uvloop  # noqa: PLC0415  (there is none for Windows)
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)
