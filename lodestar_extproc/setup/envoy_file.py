"""envoy_file(): a complete, commented Envoy configuration for engines that were asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Patch
from lodestar_extproc.check.mending.mended import mended

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lodestar_extproc.config.node import Key
    from lodestar_extproc.setup.engine_probe import ProbedEngine

ENGINES_BLOCK = re.compile(
    r"(?<=cluster_name: engines\n      endpoints:\n      - lb_endpoints:\n)"
    r".*?(?=    load_balancing_policy:)",
    re.DOTALL,
)
ADDRESSES_LINE = re.compile(r"# Change the addresses: .*\n")
TEMPLATE = "envoy.yaml"
CLUSTER: tuple[Key, ...] = ("static_resources", "clusters", 0)
SETTINGS: tuple[Key, ...] = (*CLUSTER, "metadata", "filter_metadata", "lodestar")
NAMES: Mapping[str, str] = MappingProxyType(
    {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM", "triton": "Triton"}
)
UNLIKE_RATIO = 1.1
"""Caches of engines on one kind of accelerator differ by less, by what runs beside them."""


def template(name: str) -> str:
    """The shipped file *name*."""
    return (files("lodestar_extproc.setup") / "files" / name).read_text(encoding="utf-8")


def envoy_file(
    engines: Sequence[ProbedEngine],
    *,
    port: int = 8080,
    admin_port: int = 9901,
    lodestar_port: int = 9002,
    ca_file: Path | None = None,
) -> str:
    """The file for *engines*, which are reached all by TLS or none.

    Args:
        port: where clients connect.
        ca_file: by which the engines' certificates are checked; None checks none.
    """
    text = ADDRESSES_LINE.sub(
        f"# Written for {len(engines)} engines by `lodestar-extproc init`.\n",
        template(TEMPLATE),
    )
    text = ENGINES_BLOCK.sub(
        lambda _: "".join(_endpoint_lines(engine, engines) for engine in engines), text
    )
    listener = ("static_resources", "listeners", 0, "address", "socket_address", "port_value")
    admin = ("admin", "address", "socket_address", "port_value")
    lodestar = ("static_resources", "clusters", 1, "load_assignment", "endpoints", 0)
    service = (*lodestar, "lb_endpoints", 0, "endpoint", "address", "socket_address", "port_value")
    patches = [
        Patch(TEMPLATE, path, value)
        for path, value in ((listener, port), (admin, admin_port), (service, lodestar_port))
    ]
    return mended(text, (*patches, *_cluster_patches(engines, ca_file)))


def _cluster_patches(engines: Sequence[ProbedEngine], ca_file: Path | None) -> Iterator[Patch]:
    if not all(engine.address.is_ip for engine in engines):
        yield Patch(TEMPLATE, (*CLUSTER, "type"), "STRICT_DNS")
    ((path, _),) = Counter(e.health_path or "/health" for e in engines).most_common(1)
    if path != "/health":
        yield Patch(TEMPLATE, (*CLUSTER, "health_checks", 0, "http_health_check", "path"), path)
        yield Patch(TEMPLATE, (*SETTINGS, "health_path"), path)
    if engines[0].address.scheme == "https":
        yield Patch(TEMPLATE, (*CLUSTER, "transport_socket"), transport_socket(engines, ca_file))


def transport_socket(engines: Sequence[ProbedEngine], ca_file: Path | None) -> dict[str, object]:
    """TLS to the engines, by the name of the first that has one."""
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    names = [engine.address.host for engine in engines if not engine.address.is_ip]
    config: dict[str, object] = {"@type": kind}
    if names:
        config["sni"] = names[0]
    if ca_file is not None:
        trusted = {"validation_context": {"trusted_ca": {"filename": str(ca_file)}}}
        config["common_tls_context"] = trusted
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _endpoint_lines(engine: ProbedEngine, engines: Sequence[ProbedEngine]) -> str:
    address = engine.address
    host = f'"{address.host}"' if ":" in address.host else address.host
    socket = f"{{socket_address: {{address: {host}, port_value: {address.port}}}}}"
    kind = "" if engine.engine == "vllm" else f"engine: {engine.engine}, "
    lines = [
        *(f"# {line}" for line in _described(engine, engines)),
        f"- endpoint: {{address: {socket}}}",
        "  # Engines on the same kind of accelerator share what is learned: name it.",
        f"  metadata: {{filter_metadata: {{lodestar: {{{kind}accelerator: default}}}}}}",
    ]
    return "".join(f"        {line}\n" for line in lines)


def _described(engine: ProbedEngine, engines: Sequence[ProbedEngine]) -> Iterator[str]:
    """What is known of it, for whoever reads the file."""
    name = NAMES[engine.engine]
    if engine.problem:
        problem = " ".join(engine.problem.split())
        yield f"NOT PROBED: {problem}."
        yield f"Taken for {name}; ask it again by `lodestar-extproc init` once it runs."
        return
    models = f", serves {', '.join(engine.models)}" if engine.models else ""
    yield f"{name} {engine.version}".rstrip() + models + "."
    if not engine.has_metrics:
        yield f"NO METRICS: taken for {name}; its queue and cache are not seen."
    if engine.kv_capacity_tokens:
        blocks = f" in blocks of {engine.cache_block_tokens:g}" if engine.cache_block_tokens else ""
        yield f"Its KV cache holds {engine.kv_capacity_tokens:,.0f} tokens{blocks}."
    if not engine.health_path:
        yield "NO HEALTH: it answers 200 on no path that is known; set http_health_check.path."
    yield from _unlike(engine, engines)


def _unlike(engine: ProbedEngine, engines: Sequence[ProbedEngine]) -> Iterator[str]:
    caches = [e.kv_capacity_tokens for e in engines if e.kv_capacity_tokens]
    if caches and engine is engines[0] and max(caches) > UNLIKE_RATIO * min(caches):
        yield "The engines' caches differ: give unlike machines other names of accelerators below."
    others = {model for e in engines for model in e.models} - set(engine.models)
    if engine.models and others:
        yield f"OTHER MODELS: this one does not serve {', '.join(sorted(others))}; Lodestar expects"
        yield "the engines of a pool to serve the same: make two pools of them."
