"""Which store a pool is shared through: its settings', else the environment's, else the workers'."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builders import an_envoy_file
from lodestar_extproc.config import ConfigError, read_envoy_config
from lodestar_extproc.config.setting import SettingError
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.service.replicas import URL_VARIABLE, Replicas
from lodestar_extproc.service.worker import WorkerPlace
from lodestar_extproc.supervision import Supervisor

pytest.importorskip("redis", reason="no client of Redis: pip install 'lodestar-extproc[redis]'")
PLACE = WorkerPlace(0, 2, Path("/run/lodestar"), os.getppid())


def stores(folder: Path, place: WorkerPlace | None = None, share: str = "") -> list[str]:
    """As logs name them."""
    policy = "          policy: learned\n"
    shared = (policy, f"{policy}          share: {share}\n")
    config = read_envoy_config(an_envoy_file(folder, *([shared] if share else [])))
    replicas = Replicas((), Metrics(), Supervisor(), place)
    for pool in config.pools:
        replicas.listeners(pool)
    return [str(sharer.target) for sharer in replicas.sharers.values()]


def test_nothing_is_shared_where_nobody_names_a_store(tmp_path):
    assert stores(tmp_path) == []


def test_a_setting_goes_before_the_environment_and_that_before_the_hub_of_workers(
    tmp_path, monkeypatch
):
    assert stores(tmp_path, PLACE) == ["the hub of workers"]
    monkeypatch.setenv(URL_VARIABLE, "redis://environment")
    assert stores(tmp_path, PLACE) == ["environment:6379"]
    assert stores(tmp_path) == ["environment:6379"]
    assert stores(tmp_path, PLACE, share="redis://settings") == ["settings:6379"]


def test_an_environment_that_names_no_store_is_refused_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv(URL_VARIABLE, "environment:6379")

    with pytest.raises((SettingError, ConfigError), match="no store"):
        stores(tmp_path)
