"""The command `init`: an Envoy file for engines, written, checked, and what to do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar_extproc.commands.say import complain

DEFAULT_FILE = Path("envoy.yaml")
ISTIO_FILE = Path("lodestar-envoy-filter.yaml")
EXISTS = 1  # exit status

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
    # Here, so that `--help` answers at once.
    from lodestar_extproc.commands import init_file  # noqa: PLC0415
    from lodestar_extproc.setup.istio_file import IstioGateway  # noqa: PLC0415

    target = output or (ISTIO_FILE if istio else DEFAULT_FILE)
    if into is None and target.exists() and not force:
        complain(f"error: {target} exists: --force overwrites it, --into {target} adds to it")
        raise typer.Exit(EXISTS)
    if istio:
        labels = init_file.gateway_labels(gateway_labels)
        gateway = IstioGateway(gateway_namespace, labels, gateway_port, route)
        init_file.write_istio(engines, gateway, namespace, target)
        return
    places = init_file.Places(port, admin_port, lodestar_port, engine_ca)
    init_file.write_file(engines, places, target, into, cluster, asks=not yes)
