"""The command `epp`: `serve`, started by the flags of the Gateway API's own endpoint pickers.

So a manifest that runs the light endpoint picker, or llm-d's, runs Lodestar by another image alone.
Flags are those of https://github.com/kubernetes-sigs/gateway-api-inference-extension (lwepp) and
https://github.com/llm-d/llm-d-router.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import typer

from lodestar_extproc.commands.access_options import admin_access_of
from lodestar_extproc.commands.serve import own_namespace, run
from lodestar_extproc.transport.choice import DEFAULT_TRANSPORT

if TYPE_CHECKING:
    from lodestar_extproc.config import Config, Watched
    from lodestar_extproc.service.options import ServeOptions

DEBUG_VERBOSITY = 4
"""From here on the pickers tell of each request."""
MAX_PORTS = 8  # of an InferencePool, by its definition
_SETTING = "has no effect: set {} in the settings file"
NO_EFFECT: Mapping[str, str] = MappingProxyType(
    {
        "enable-cert-reload": "is always so",
        "ha-enable-leader-election": "has no effect: every replica serves, and learns for itself",
        "config-text": "has no effect: name a settings file by --config-file",
        "refresh-metrics-interval": _SETTING.format("scrape_interval_s"),
        "metrics-staleness-threshold": _SETTING.format("scrape_stale_s"),
        "model-server-metrics-path": _SETTING.format("metrics_path"),
        "model-server-metrics-port": _SETTING.format("endpoints: {metrics_port: ...}"),
        "model-server-metrics-scheme": _SETTING.format("engine_tls"),
        "model-server-metrics-https-insecure-skip-verify": _SETTING.format("engine_tls"),
        "disable-endpoint-subset-filter": "has no effect: subsets are always respected",
        "emit-endpoint-scores": "has no effect: ask /explain on the metrics port",
    }
)
"""Flags that are taken, and what to know of them."""
UNUSED = (
    "allow-experimental-plugins",
    "cache-info-metric",
    "enable-grpc-stream-metrics",
    "enable-pprof",
    "grpc-max-recv-msg-size",
    "grpc-max-send-msg-size",
    "health-checking",
    "kv-cache-usage-percentage-metric",
    "log-level",
    "lora-info-metric",
    "metrics-endpoint-auth",
    "refresh-prometheus-metrics-interval",
    "tls-cipher-suites",
    "tls-min-version",
    "total-queued-requests-metric",
    "total-running-requests-metric",
    "zap-devel",
    "zap-encoder",
    "zap-log-level",
    "zap-stacktrace-level",
    "zap-time-encoding",
)
"""Flags that are taken and change nothing: they are named together."""
_UNITS: Mapping[str, float] = MappingProxyType({"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3})
_OURS = ("-h", "--help", "--version", "--install-completion", "--show-completion")
_log = logging.getLogger(__name__)


def epp(context: typer.Context) -> None:
    """Serve a gateway as its endpoint picker, started by the flags of other endpoint pickers.

    It is also what runs where no command is named, so that only the image need be changed.
    """
    flags, unknown = _parser().parse_known_args(context.args)

    def configure() -> tuple[Config, ServeOptions]:
        _tell(flags, unknown)
        return config_of(flags), options_of(flags)

    run(configure, "debug" if flags.v >= DEBUG_VERBOSITY else "info")


def config_of(flags: argparse.Namespace) -> Config:
    """The pool or the pods to pick from.

    Raises:
        ConfigError: the settings file is wrong.
        ValueError: nothing to pick from is named, or two things.
    """
    from lodestar_extproc.config import read_picker_config  # noqa: PLC0415

    path = Path(flags.config_file) if flags.config_file else None
    return read_picker_config(_watched(flags), path)


def options_of(flags: argparse.Namespace) -> ServeOptions:
    """The server's surface: ports, encryption, draining."""
    from lodestar_extproc.server_tls import ServerTls  # noqa: PLC0415
    from lodestar_extproc.service.options import ServeOptions  # noqa: PLC0415
    from lodestar_extproc.service.traces import tracing_is_installed  # noqa: PLC0415

    tls = ServerTls(Path(flags.cert_path) if flags.cert_path else None)
    return ServeOptions(
        listen=(f"[::]:{flags.grpc_port}",),
        tls=tls if flags.secure_serving else None,
        health=(f"[::]:{flags.grpc_health_port}",),
        admin=f":{flags.metrics_port}",
        admin_access=admin_access_of(
            Path(flags.metrics_cert_dir) if flags.metrics_cert_dir else None,
            Path(flags.metrics_client_ca_file) if flags.metrics_client_ca_file else None,
        ),
        alias_metrics=flags.alias_metrics,
        tracing=flags.tracing and tracing_is_installed(),
        drain_s=flags.drain_timeout,
        transport=flags.transport,
    )


def _watched(flags: argparse.Namespace) -> Watched:
    from lodestar_extproc.config import InferencePoolRef, PodSelector  # noqa: PLC0415

    namespace = flags.pool_namespace or own_namespace()
    if bool(flags.pool_name) == bool(flags.endpoint_selector):
        raise ValueError("either --pool-name or --endpoint-selector must be set")
    if flags.pool_name:
        return InferencePoolRef(flags.pool_name, namespace, flags.pool_group)
    ports = tuple(dict.fromkeys(flags.endpoint_target_ports))
    if not 1 <= len(ports) <= MAX_PORTS:
        raise ValueError(f"--endpoint-target-ports takes 1 to {MAX_PORTS} ports")
    return PodSelector(flags.endpoint_selector, ports, namespace)


def _parser() -> argparse.ArgumentParser:
    from lodestar_extproc.config.kubernetes import POOL_GROUP  # noqa: PLC0415

    parser = argparse.ArgumentParser("lodestar-extproc epp", allow_abbrev=False)
    add = parser.add_argument
    add("--pool-name", default="", help="the InferencePool to pick from")
    add("--pool-namespace", default="", help="its namespace; else NAMESPACE, else our own")
    add("--pool-group", default=POOL_GROUP, help="its API group")
    add("--endpoint-selector", default="", help="labels of pods to pick from, without a pool")
    add("--endpoint-target-ports", type=_ports, default=(), help="their ports: 8000,8001")
    add("--grpc-port", type=int, default=9002, help="for the gateway")
    add("--grpc-health-port", type=int, default=9003, help="for gRPC health probes")
    add("--metrics-port", type=int, default=9090, help="for metrics and operators, by HTTP")
    add("--metrics-cert-dir", default="", help="folder of tls.crt and tls.key; else plain HTTP")
    add("--metrics-client-ca-file", default="", help="take only clients of this CA there")
    add("--secure-serving", nargs="?", const=True, type=_flag, default=True, help="use TLS")
    add("--cert-path", default="", help="folder of tls.crt and tls.key; else self-signed")
    add("--drain-timeout", type=_seconds, default=30.0, help="serve on for so long: 30s")
    add(
        "--alias-metrics",
        nargs="?",
        const=True,
        type=_flag,
        default=True,
        help="show metrics under the names of other pickers, too",
    )
    add(
        "--tracing",
        nargs="?",
        const=True,
        type=_flag,
        default=False,
        help="send spans by OTLP, where OTEL_EXPORTER_OTLP_ENDPOINT says",
    )
    add("--transport", default=DEFAULT_TRANSPORT, help="what carries gRPC: asyncio, or grpcio")
    add("--config-file", default="", help="settings; another picker's own file says nothing")
    add("-v", "--v", type=int, default=2, help="4 and more tell of each exchange")
    for name in (*NO_EFFECT, *UNUSED):
        add(f"--{name}", nargs="?", const="", default=None, help=argparse.SUPPRESS)
    return parser


def _tell(flags: argparse.Namespace, unknown: Sequence[str]) -> None:
    """What was asked for by a flag and is not done."""
    from lodestar_extproc.service.traces import tracing_is_installed  # noqa: PLC0415

    if flags.tracing and not tracing_is_installed():
        _log.warning("--tracing has no effect: it needs the extra, lodestar-extproc[tracing]")
    asked = {
        name
        for name in (*NO_EFFECT, *UNUSED)
        if getattr(flags, name.replace("-", "_")) not in (None, "false", "False", "f", "F", "0")
    }
    for name, word in NO_EFFECT.items():
        if name in asked:
            _log.warning("--%s %s", name, word)
    unused = ", ".join(f"--{name}" for name in UNUSED if name in asked)
    if unused:
        _log.warning("taken, and without any effect here: %s", unused)
    if unknown:
        _log.warning("not known here, and left out: %s", " ".join(unknown))


def _flag(text: str) -> bool:
    """As Go reads it."""
    if text.lower() in ("true", "t", "1"):
        return True
    if text.lower() in ("false", "f", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _ports(text: str) -> tuple[int | str, ...]:
    """Numbers, or names that pods give their ports."""
    return tuple(map(_port, filter(None, map(str.strip, text.split(",")))))


def _port(text: str) -> int | str:
    if not text.isdecimal() and re.fullmatch(r"[a-z0-9-]{1,15}", text):
        return text
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port, 1 to 65535, and no port's name")


def _seconds(text: str) -> float:
    """As Go writes a duration: `30s`, `1m30s`, `500ms`."""
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; 30s is one")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def with_command(arguments: Sequence[str] = ()) -> list[str]:
    """*arguments* with `epp` before them, where they begin with one of its flags.

    >>> with_command(["--pool-name", "vllm"])
    ['epp', '--pool-name', 'vllm']
    """
    given = list(arguments or sys.argv[1:])
    if not given or not given[0].startswith("-") or given[0] in _OURS:
        return given
    flags = {option for action in _parser()._actions for option in action.option_strings}  # noqa: SLF001
    return ["epp", *given] if given[0].partition("=")[0] in flags else given
