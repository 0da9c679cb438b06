"""A real Prometheus that scrapes one address, and is asked."""

from __future__ import annotations

import json
import shutil
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from child_process import ChildProcess
from ports import a_port

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="needs Prometheus: make tools, or apt-get install prometheus",
)
SCRAPE_S = 0.5


class Prometheus(ChildProcess):
    """Gives all that it scrapes at *address* the labels *labels*."""

    def __init__(self, address: str, folder: Path, **labels: str) -> None:
        target = {"targets": [address], "labels": labels}
        job = {"job_name": "lodestar", "static_configs": [target]}
        times = {
            "scrape_interval": f"{SCRAPE_S * 1000:.0f}ms",
            "scrape_timeout": f"{SCRAPE_S * 1000:.0f}ms",
        }
        file, port = folder / "prometheus.yaml", a_port()
        with file.open("w") as out:
            YAML().dump({"global": times, "scrape_configs": [job]}, out)
        self._url = f"http://127.0.0.1:{port}/api/v1/"
        command = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ]
        super().__init__("prometheus", command, folder)

    def is_up(self) -> bool:
        """Whether it has scraped."""
        try:
            return any(each["value"][1] == "1" for each in self.ask("up"))
        except OSError:
            self.check_alive()
            return False

    def ask(self, query: str) -> list[dict[str, Any]]:
        return self._get("query", query=query)["result"]

    def exemplars(self, query: str) -> list[dict[str, Any]]:
        told = self._get("query_exemplars", query=query, start="0", end="9999999999")
        return [each for series in told for each in series["exemplars"]]

    def _get(self, path: str, **query: str) -> Any:
        url = f"{self._url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]
