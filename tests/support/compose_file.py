"""docker-compose.yaml and Dockerfile as values: what each service runs, and when it is well."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
OUR_IMAGES = ("lodestar-extproc", "lodestar-extproc-simulator")


@dataclass(frozen=True)
class HealthCheck:
    command: tuple[str, ...]
    interval_s: float
    timeout_s: float
    retries: int
    start_period_s: float

    @property
    def patience_s(self) -> float:
        """After this long without success Docker calls a container unhealthy."""
        return self.start_period_s + self.retries * (self.interval_s + self.timeout_s)


@dataclass(frozen=True)
class Service:
    name: str
    image: str
    command: tuple[str, ...]
    health: HealthCheck
    environment: dict[str, str] = field(default_factory=dict)
    target: str = ""
    volumes: tuple[tuple[str, str], ...] = ()
    ports: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()


@cache
def services() -> dict[str, Service]:
    document = YAML(typ="safe").load(COMPOSE_FILE)
    return {name: _service(name, entry) for name, entry in document["services"].items()}


def _service(name: str, entry: dict[str, Any]) -> Service:
    check = entry["healthcheck"]
    assert check["test"][0] == "CMD", "a health check without a shell can be run anywhere"
    for condition in entry.get("depends_on", {}).values():
        assert condition == {"condition": "service_healthy"}
    return Service(
        name=name,
        image=entry["image"],
        command=tuple(entry.get("command", ())),
        health=HealthCheck(
            command=tuple(check["test"][1:]),
            interval_s=_seconds(check["interval"]),
            timeout_s=_seconds(check["timeout"]),
            retries=check["retries"],
            start_period_s=_seconds(check["start_period"]),
        ),
        environment=entry.get("environment", {}),
        target=entry.get("build", {}).get("target", ""),
        volumes=tuple(tuple(volume.split(":")[:2]) for volume in entry.get("volumes", ())),
        ports=tuple(entry.get("ports", ())),
        depends_on=tuple(entry.get("depends_on", {})),
    )


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def dockerfile(instruction: str) -> list[str]:
    """What follows each *instruction*, continuation lines joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction}\s+(.*)$", text, flags=re.MULTILINE)


def stages() -> dict[str, str]:
    """What each stage of the Dockerfile begins from, the last one last."""
    return dict(reversed(line.split(" AS ")) for line in dockerfile("FROM"))


def entrypoint() -> tuple[str, ...]:
    """Of our images."""
    return tuple(json.loads(dockerfile("ENTRYPOINT")[0]))


def image_environment() -> dict[str, str]:
    """Of our images, less their PATH."""
    settings = dockerfile("ENV")[-1]  # the one before is the builder's
    pairs = dict(pair.split("=", 1) for pair in settings.split())
    del pairs["PATH"]
    return pairs


def dashboard() -> dict[str, Any]:
    return json.loads((ROOT / "deploy/grafana/dashboards/lodestar.json").read_text())


def dashboard_queries() -> list[tuple[str, str]]:
    """Title and expression of every query."""
    return [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]
