"""LocalStack: the services of docker-compose.yaml as processes of this machine, without Docker.

Each service gets a loopback address of its own where Docker would give it a network of its own, so
ports and commands stay as they are. Names of services, and "all interfaces" and "localhost" inside
one, become these addresses, in commands, health checks and the files that are mounted.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

from compose_file import OUR_IMAGES, ROOT, Service, entrypoint, image_environment

OWN_ADDRESSES = re.compile(r"\b(?:0\.0\.0\.0|127\.0\.0\.1|localhost)\b")
POLL_S = 0.2
STOP_S = 15.0


class LocalStack:
    """`with LocalStack(...) as stack` starts everything in order and leaves nothing behind."""

    def __init__(self, services: Iterable[Service], folder: Path) -> None:
        self._services = {service.name: service for service in services}
        self._folder = folder
        network = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"
        self.hosts = {name: f"{network}.{2 + i}" for i, name in enumerate(self._services)}
        self.healthy: list[str] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._mounts: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        try:
            while len(self.healthy) < len(self._services):
                self._start_what_can_be()
                self._await_one()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def get(self, service: str, port: int, path: str, **query: str) -> Any:
        """What *service* answers: JSON as a value, anything else as text."""
        url = f"http://{self.hosts[service]}:{port}{path}"
        url += f"?{urlencode(query)}" if query else ""
        with urlopen(url, timeout=10) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers["Content-Type"] else body.decode()

    def log(self, name: str) -> str:
        file = self._folder / name / "log"
        return file.read_text(errors="replace")[-3000:] if file.exists() else ""

    def mounted(self, name: str, path: str) -> Path:
        """The file that *name* sees at *path*."""
        return Path(self._mounts[name][path])

    def stop(self, name: str) -> int:
        """Stop as Docker does; the exit status."""
        process = self._processes[name]
        process.terminate()
        return process.wait(STOP_S)

    def check_alive(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{self.log(name)}")

    # -- starting ------------------------------------------------------------------------------

    def _start_what_can_be(self) -> None:
        for name, service in self._services.items():
            wanted = [other for other in service.depends_on if other in self._services]
            if name not in self._processes and set(wanted) <= set(self.healthy):
                self._start(service)

    def _start(self, service: Service) -> None:
        folder = self._folder / service.name
        folder.mkdir()
        mounts = self._mounts[service.name] = self._mount(service, folder)
        command = self._localised(service, (*self._program(service), *service.command), mounts)
        with (folder / "log").open("wb") as log:
            self._processes[service.name] = subprocess.Popen(
                command, cwd=folder, env=self._environment(service), stdout=log, stderr=log
            )

    def _program(self, service: Service) -> tuple[str, ...]:
        """What the image puts before the command."""
        if service.image in OUR_IMAGES:
            return entrypoint()
        return ("prometheus",) if service.image.startswith("prom/prometheus") else ()

    def _environment(self, service: Service) -> dict[str, str]:
        of_image = image_environment() if service.image in OUR_IMAGES else {}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return {"PATH": path, "HOME": str(self._folder)} | of_image | service.environment

    def _mount(self, service: Service, folder: Path) -> dict[str, str]:
        """Copies of what is mounted, with local addresses; their paths by the container's."""
        mounts = {}
        for i, (source, target) in enumerate(service.volumes):
            place = folder / f"mount{i}" / Path(target).name
            place.parent.mkdir()
            if not source.startswith("."):
                place.mkdir()
            elif (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place)
            else:
                shutil.copy(ROOT / source, place)
            for file in [place] if place.is_file() else place.rglob("*.*"):
                file.write_text(self._local(service, file.read_text()))
            mounts[target] = str(place)
        return mounts

    def _localised(
        self, service: Service, command: Iterable[str], mounts: Mapping[str, str]
    ) -> list[str]:
        words = list(command)
        if mounts:
            targets = "|".join(sorted(map(re.escape, mounts), key=len, reverse=True))
            mounted = re.compile(rf"(?<![\w/])(?:{targets})(?![\w-])")
            words = [mounted.sub(lambda match: mounts[match[0]], word) for word in words]
        return [self._local(service, word) for word in words]

    def _local(self, service: Service, text: str) -> str:
        text = OWN_ADDRESSES.sub(self.hosts[service.name], text)
        for name, host in self.hosts.items():
            # "name:8000" in URLs and targets, "address: name" in Envoy's YAML.
            text = re.sub(rf"(?<![\w.-]){name}(?=:\d)|(?<=\baddress: ){name}\b", host, text)
        return text

    # -- health --------------------------------------------------------------------------------

    def _await_one(self) -> None:
        """Until one more service is healthy."""
        waiting = [self._services[n] for n in self._processes if n not in self.healthy]
        give_up_at_s = time.monotonic() + max(s.health.patience_s for s in waiting)
        while True:
            self.check_alive()
            for service in waiting:
                if self._is_healthy(service):
                    self.healthy.append(service.name)
                    return
            names = ", ".join(service.name for service in waiting)
            assert time.monotonic() < give_up_at_s, f"not healthy: {names}"
            time.sleep(POLL_S)

    def _is_healthy(self, service: Service) -> bool:
        try:
            done = subprocess.run(
                self._localised(service, service.health.command, {}),
                env=self._environment(service),
                capture_output=True,
                timeout=service.health.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()


def eventually(condition: Callable[[], Any], deadline_s: float = 60.0) -> Any:
    """The first true value of *condition*; fails at the deadline."""
    give_up_at_s = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < give_up_at_s, "what was waited for did not happen"
        time.sleep(POLL_S)
    return value
