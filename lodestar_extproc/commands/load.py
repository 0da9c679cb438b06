"""The command `load`: open-loop load on any OpenAI endpoint."""

from __future__ import annotations

import asyncio
import csv
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated

import aiohttp
import orjson
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lodestar_extproc.evaluation.chats import MIXES, Chats
from lodestar_extproc.evaluation.load import LoadClient, LoadRecord, first_model
from lodestar_extproc.evaluation.summary import Summary, summarise

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
    json: Annotated[Path | None, typer.Option(help="Write the summary here.")] = None,
    records: Annotated[Path | None, typer.Option(help="Write every request here, as CSV.")] = None,
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
    mix = replace(MIXES[workload], rate_per_s=rate)
    name = model or _first_model(url)
    client = LoadClient(url, model=name, timeout_s=timeout)
    try:
        while True:
            asyncio.run(_run(client, Chats(mix, seed, duration)))
            if not repeat:
                break
            client, seed = LoadClient(url, model=name, timeout_s=timeout), seed + 1
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what follows is of the requests that had ended")
    summary = summarise(client.records)
    if json is not None:
        json.write_bytes(orjson.dumps(asdict(summary), option=orjson.OPT_INDENT_2))
    if records is not None:
        write_csv(records, client.records)
    if summary.failed:
        Console(stderr=True).print(f"failed: {_failures(client.records)}", style="red")
        raise typer.Exit(1)


def _first_model(url: str) -> str:
    try:
        return asyncio.run(first_model(url))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        typer.secho(f"error: {url} does not say what it serves: {error}", fg="red", err=True)
        raise typer.Exit(1) from None


async def _run(client: LoadClient, chats: Chats) -> None:
    with Live(_table(client, chats), refresh_per_second=4) as live:
        running = asyncio.ensure_future(client.run(chats))
        while not running.done():
            await asyncio.wait([running], timeout=REFRESH_S)
            live.update(_table(client, chats))
        running.result()


def _table(client: LoadClient, chats: Chats) -> Table:
    sent_until_s = max((r.at_s for r in client.records), default=0.0)
    table = Table(title=f"{client.n_sent} sent, {sent_until_s:.0f} of {chats.duration_s:.0f} s")
    summary = summarise(client.records)
    for field in fields(Summary):
        table.add_column(field.name, justify="right")
    table.add_row(*(_shown(getattr(summary, field.name)) for field in fields(Summary)))
    return table


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _failures(records: list[LoadRecord]) -> str:
    reasons = [r.failure for r in records if r.failure]
    return "; ".join(f"{reasons.count(reason)} x {reason}" for reason in dict.fromkeys(reasons))


def write_csv(path: Path, records: list[LoadRecord]) -> None:
    """One line a request."""
    names = [field.name for field in fields(LoadRecord)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([getattr(record, name) for name in names] for record in records)
