"""istio_file(): the EnvoyFilter that puts Lodestar into Istio's gateway, with names filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.setup.envoy_file import template

if TYPE_CHECKING:
    from lodestar_extproc.setup.engine_address import EngineAddress

LOCAL = "svc.cluster.local"


@dataclass(frozen=True, slots=True)
class IstioGateway:
    """Where the filter goes.

    Attributes:
        labels: of the gateway's pods.
        port: on which they listen; Istio's own gateway serves port 80 on 8080.
        route: the name of the VirtualService's route whose requests are routed.
    """

    namespace: str = "istio-system"
    labels: tuple[tuple[str, str], ...] = (("istio", "ingressgateway"),)
    port: int = 8080
    route: str = "llm"


def istio_file(engines: EngineAddress, gateway: IstioGateway, namespace: str) -> str:
    """The EnvoyFilter for the Service that *engines* names.

    Args:
        namespace: of Lodestar, and of a Service that is named without one.

    Raises:
        ValueError: it is the address of no Service.
    """
    service = _service(engines, namespace)
    labels = ", ".join(f"{name}: {value}" for name, value in gateway.labels)
    edits = (
        ("namespace: istio-system", f"namespace: {gateway.namespace}"),
        ("labels: {istio: ingressgateway}", f"labels: {{{labels}}}"),
        ("portNumber: 8080", f"portNumber: {gateway.port}"),
        ("8080 is the port", f"{gateway.port} is the port"),
        ("{vhost: {route: {name: llm}}}", f"{{vhost: {{route: {{name: {gateway.route}}}}}}}"),
        ("route named `llm`", f"route named `{gateway.route}`"),
        (f"engines.default.{LOCAL}, portNumber: 8000", f"{service}, portNumber: {engines.port}"),
        (f"lodestar.default.{LOCAL}", f"lodestar.{namespace}.{LOCAL}"),
        ("`default` below is", f"`{namespace}` below is"),
        (
            "# What ../../envoy.yaml says in its places (1) to (5), as patches",
            "# Lodestar's filters, access log and clusters, as patches",
        ),
    )
    text = template("istio.yaml")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return text


def _service(engines: EngineAddress, namespace: str) -> str:
    """Its whole name in the cluster."""
    if engines.is_ip:
        raise ValueError(f"{engines.host} is an address: name the engines' Service, engines:8000")
    parts = engines.host.removesuffix(f".{LOCAL}").removesuffix(".svc").split(".")
    if len(parts) > 2:
        raise ValueError(
            f"{engines.host} is no Service of the cluster, such as engines.{namespace}"
        )
    return ".".join([*parts, *([namespace] if len(parts) == 1 else []), LOCAL])
