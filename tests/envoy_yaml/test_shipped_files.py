import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lodestar_extproc.config import read_envoy_config

ROOT = Path(__file__).parents[2]
ENVOY = Path(sysconfig.get_path("scripts")) / "envoy"
FILES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "envoy").rglob("*.yaml")
    if "static_resources:" in path.read_text()
)
EVERYTHING = ("BUFFERED", "", True, True)
SOURCES = {
    "streamed.yaml": ("BUFFERED", "STREAMED", False, True),
    "observer_only.yaml": ("BUFFERED", "", True, False),
    "access_log_only.yaml": ("BUFFERED", "", False, True),
    "full_duplex.yaml": ("FULL_DUPLEX_STREAMED", "FULL_DUPLEX_STREAMED", False, False),
}
CHANGED = {
    "shadow.yaml": {"engines.metadata", "engines.load_balancing_policy", "engines.lb_policy"},
    "header.yaml": {"engines.load_balancing_policy"},
    "streamed.yaml": {"manager.http_filters"},
    "observer_only.yaml": {"manager.access_log", "manager.http_filters"},
    "access_log_only.yaml": {"manager.http_filters"},
    "full_duplex.yaml": {
        "manager.access_log",
        "manager.http_filters",
        "engines.load_balancing_policy",
    },
    "eds.yaml": {
        "engines.type",
        "engines.eds_cluster_config",
        "engines.load_assignment",
        "engines.common_lb_config",
    },
    "strict_dns.yaml": {"engines.type", "engines.load_assignment", "engines.common_lb_config"},
    "envoy_1_36.yaml": {"manager.access_log"},
    "standby.yaml": {"lodestar.load_assignment", "lodestar.health_checks"},
    "compose.yaml": {
        "engines.type",
        "engines.load_assignment",
        "lodestar.type",
        "lodestar.load_assignment",
    },
    "gateway.yaml": {
        "engines.type",
        "engines.load_assignment",
        "lodestar.type",
        "lodestar.load_assignment",
    },
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_envoy_accepts_every_shipped_file(path):
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "--config-path", path, "--log-level", "warning"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.defpath},
    )

    assert done.returncode == 0, done.stderr
    assert "Deprecated" not in done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_we_read_every_shipped_file(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = read_envoy_config(path)

    sources = config.sources
    seen = (sources.request_body_mode, sources.response_body_mode, sources.observer)
    assert (*seen, sources.access_log_tags is not None) == SOURCES.get(path.name, EVERYTHING)
    assert [pool.name for pool in config.pools] == ["engines"]
    host = "lodestar" if path.name in ("compose.yaml", "gateway.yaml") else "127.0.0.1"
    assert config.extproc_address == f"{host}:9002"


@pytest.mark.parametrize("name", CHANGED)
def test_variant_differs_from_the_default_only_where_it_says_so(name):
    (path,) = [path for path in FILES if path.name == name]
    default, variant = parts(ROOT / "envoy" / "envoy.yaml"), parts(ROOT / path)

    differing = {
        key for key in default.keys() | variant.keys() if default.get(key) != variant.get(key)
    }
    assert differing == CHANGED[name]


def parts(path):
    """Every field of the listener, the connection manager and the clusters, by name."""
    document = YAML(typ="safe").load(path)
    resources = document.pop("static_resources")
    (listener,) = resources["listeners"]
    ((chain,),) = [found["filters"] for found in listener.pop("filter_chains")]
    places = {"top": document, "listener": listener, "manager": chain["typed_config"]}
    places |= {cluster["name"]: cluster for cluster in resources["clusters"]}
    return {
        f"{place}.{key}": value for place, fields in places.items() for key, value in fields.items()
    }
