"""The command `load`: open-loop load on any OpenAI endpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar_extproc.commands.option_values import file_to_write
from lodestar_extproc.commands.say import complain, tell
from lodestar_extproc.evaluation.chats import MIXES, Chats

if TYPE_CHECKING:
    from lodestar_extproc.evaluation.load import LoadClient

REFRESH_S = 0.5  # of the table on the screen


def load(
    *,
    url: Annotated[str, typer.Option(help="The server, without a path.")],
    model: Annotated[
        str | None,
        typer.Option(help="The model to ask for.", show_default="the first the server names"),
    ] = None,
    workload: Annotated[
        str, typer.Option(help=f"What to send: {', '.join(MIXES)}.", show_default=True)
    ] = "mixed",
    rate: Annotated[float, typer.Option(min=0.01, help="Requests a second, Poisson.")] = 4.0,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds of arrivals.")] = 30.0,
    repeat: Annotated[bool, typer.Option(help="Begin again when done, until stopped.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same arrivals.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds an answer may take.")] = 120.0,
    json: Annotated[
        Path | None, typer.Option(help="Write the summary here.", callback=file_to_write)
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="Write every request here, as CSV.", callback=file_to_write)
    ] = None,
) -> None:
    """Send open-loop load to any OpenAI-compatible endpoint and time its first tokens.

    Requests go out at their times whatever becomes of the answers: conversations under shared
    system prompts, long documents asked about more than once, short questions; all streamed.
    Only send load to servers that are yours.

    Examples:

        lodestar-extproc load --url http://127.0.0.1:8080 --rate 8 --duration 60

        lodestar-extproc load --url http://127.0.0.1:8080 --json summary.json --records all.csv
    """
    if workload not in MIXES:
        raise typer.BadParameter(f"{workload!r} is none of {', '.join(MIXES)}")
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url!r} is no URL: write http://HOST:PORT")
    # Here, so that `--help` answers at once.
    from lodestar_extproc.commands.load_view import failures  # noqa: PLC0415
    from lodestar_extproc.evaluation.load import LoadClient  # noqa: PLC0415

    mix = replace(MIXES[workload], rate_per_s=rate)
    name = model or _first_model(url)
    client = LoadClient(url, model=name, timeout_s=timeout)
    try:
        while True:
            _run(client, Chats(mix, seed, duration))
            if not repeat:
                break
            client, seed = LoadClient(url, model=name, timeout_s=timeout), seed + 1
    except KeyboardInterrupt:
        tell("stopped; what follows is of the requests that had ended", err=True)
    _write(client, json, records)
    if any(record.failure for record in client.records):
        complain(f"failed: {failures(client.records)}")
        raise typer.Exit(1)


def _first_model(url: str) -> str:
    import asyncio  # noqa: PLC0415

    import aiohttp  # noqa: PLC0415

    from lodestar_extproc.evaluation.load import first_model  # noqa: PLC0415

    try:
        return asyncio.run(first_model(url))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        complain(
            f"error: {url} does not say what it serves: {error or 'no answer in time'}; is it up, "
            "and does it speak OpenAI's API? --model NAME asks for a model without asking it"
        )
        raise typer.Exit(1) from None


def _run(client: LoadClient, chats: Chats) -> None:
    import asyncio  # noqa: PLC0415

    from rich.live import Live  # noqa: PLC0415

    from lodestar_extproc.commands.load_view import table  # noqa: PLC0415
    from lodestar_extproc.terminal import Terminal  # noqa: PLC0415

    async def run() -> None:
        console = Terminal(highlight=False)
        with Live(table(client, chats), console=console, refresh_per_second=4) as live:
            running = asyncio.ensure_future(client.run(chats))
            while not running.done():
                await asyncio.wait([running], timeout=REFRESH_S)
                live.update(table(client, chats))
            running.result()

    asyncio.run(run())


def _write(client: LoadClient, json: Path | None, records: Path | None) -> None:
    """The files asked for; what cannot be written is told, and the rest is written."""
    import orjson  # noqa: PLC0415

    from lodestar_extproc.commands.load_view import write_csv  # noqa: PLC0415
    from lodestar_extproc.evaluation.summary import summarise  # noqa: PLC0415

    try:
        if records is not None:
            write_csv(records, client.records)
        if json is not None:
            summary = asdict(summarise(client.records))
            json.write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    except OSError as error:
        complain(f"error: not written: {error}")
        raise typer.Exit(1) from None
