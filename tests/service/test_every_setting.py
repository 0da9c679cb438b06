"""Every setting: a pool that is told of a change is like one that was started on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from deep_state import deep_state
from lodestar_extproc.config import EndpointSettings, PoolSettings, Setting, settings_of
from lodestar_extproc.config.kv_events import KvEvents
from lodestar_extproc.config.mapped import MappedSetting
from lodestar_extproc.config.setting import SettingError
from pool_at_work import (
    PoolAtWork,
    asked_of_the_router,
    crowded,
    held,
    judged,
    learned_since_training,
    listened_to,
    on_the_stream,
    remembered,
    saved,
    traffic,
    unread,
    waits,
)

Probe = Callable[[PoolAtWork], object]


@dataclass(frozen=True)
class By:
    """How a setting's effect is observed.

    Attributes:
        base: the other settings under which it has one.
        value: what it is changed to; None takes one made from its declaration.
    """

    probe: Probe
    base: Mapping[str, Any] = field(default_factory=dict)
    value: object = None


OBSERVED = {
    "policy": By(traffic),
    "fallback_policy": By(unread),
    "shadow_policies": By(traffic),
    "cost": By(traffic),
    "externality_weight": By(traffic),
    "backlog_limit_s": By(traffic),
    "decode_weight": By(traffic),
    "eviction_weight": By(traffic),
    "eviction_depth": By(crowded),
    "memory_weight_s": By(traffic),
    "generation_weight": By(traffic, {"cost": "end_to_end"}),
    "predictor": By(traffic),
    "hold_limit_s": By(held),
    "shadow": By(on_the_stream),
    "retry_candidates": By(on_the_stream),
    "exploration_ratio": By(traffic, {"burn_in_samples": 5}, 1.0),
    "burn_in_samples": By(traffic),
    "trust_max_error_ratio": By(partial(traffic, noise=3.0)),
    "mlp_retrain_samples": By(
        learned_since_training, {"predictor": "mlp", "mlp_retrain_samples": 10}, 40
    ),
    "ttft_slo_s": By(traffic),
    "tpot_slo_s": By(traffic),
    "request_timeout_s": By(judged),
    "strict": By(on_the_stream),
    "answer_503": By(on_the_stream),
    "objective_priorities": By(on_the_stream),
    "model_rewrites": By(asked_of_the_router),
    "adapter_load_s": By(traffic, value=0.0),
    "session_header": By(on_the_stream),
    "trusted_headers": By(on_the_stream, value=()),
    "inference_paths": By(on_the_stream, value=("/ask",)),
    "conformance_headers": By(on_the_stream),
    "observed_ratio": By(asked_of_the_router),
    "bytes_per_token": By(lambda work: (asked_of_the_router(work), remembered(work))),
    "kv_events": By(listened_to, value=KvEvents(5557, 5558)),
    "metrics_path": By(waits),
    "scrape_interval_s": By(waits, {"scrape_stale_s": 60.0}, 4.0),  # longer than the idle pace
    "scrape_timeout_s": By(waits),
    "scrape_stale_s": By(judged),
    "health_path": By(waits),
    "health_interval_s": By(waits),
    "health_timeout_s": By(waits),
    "engine_tls": By(waits, value="unverified"),
    "engine_ca_path": By(waits, {"engine_tls": "verified"}),
    "engine_certificate_path": By(waits, {"engine_tls": "verified"}),
    "engine_key_path": By(waits, {"engine_tls": "verified"}),
    "engine_server_name": By(waits, {"engine_tls": "verified"}),
    "unhealthy_threshold": By(judged),
    "healthy_threshold": By(judged),
    "frozen_after_s": By(judged),
    "checkpoint_path": By(saved),
    "checkpoint_interval_s": By(waits),
}
"""Of every setting that applies live."""

SETTINGS = settings_of(PoolSettings)
LIVE = [name for name, setting in SETTINGS.items() if not setting.restart]
MAPPED = {"objective_priorities": {"other": -1}, "model_rewrites": {"m": "other"}}


def others(setting: Setting) -> list[object]:
    """Values beside its default, from its declaration; the first that is allowed is taken."""
    bounds, default = setting.bounds, setting.default
    if setting.kind is bool:
        return [not default]
    if setting.kind is tuple:
        return [bounds.choices[:1]]
    if issubclass(setting.kind, MappedSetting):
        return [setting.kind.read(MAPPED.get(setting.name, {}))]
    if setting.kind is str:
        return [*bounds.choices, f"{bounds.begins_with}x-other"]
    number: Any = 0.05 if default is None else 4 * default
    return [setting.kind(number), 1]


def other(setting: Setting, owner: type = PoolSettings) -> object:
    for value in others(setting):
        try:
            owner(**{setting.name: value})
        except SettingError:
            continue
        if value != setting.default:
            return value
    pytest.fail(f"no other value of {setting.name} is known: teach `others` one")


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    """Files are written where the test is."""
    monkeypatch.chdir(tmp_path)


def before_and_after(name: str) -> tuple[PoolSettings, PoolSettings]:
    by = OBSERVED[name]
    before = PoolSettings(**({"seed": 1} | dict(by.base)))
    value = other(SETTINGS[name]) if by.value is None else by.value
    return before, replace(before, **{name: value})


def test_no_setting_is_forgotten_here():
    assert set(OBSERVED) == set(LIVE)


@pytest.mark.parametrize("name", LIVE)
def test_a_pool_told_of_a_change_is_in_the_state_of_one_started_on_it(name):
    before, after = before_and_after(name)
    told, started = PoolAtWork(before), PoolAtWork(after)
    told.tell(after)

    assert deep_state(told) == deep_state(started)


@pytest.mark.parametrize("name", LIVE)
def test_a_pool_told_of_a_change_does_what_one_started_on_it_does(name):
    before, after = before_and_after(name)
    told, started, untold = PoolAtWork(before), PoolAtWork(after), PoolAtWork(before)
    told.tell(after)
    probe = OBSERVED[name].probe
    seen = probe(started)

    assert probe(told) == seen
    assert probe(untold) != seen, "the probe does not see this setting"


@pytest.mark.parametrize("name", list(settings_of(EndpointSettings)))
def test_a_change_of_an_endpoints_own_settings_applies_too(name):
    setting = settings_of(EndpointSettings)[name]
    value = other(setting, EndpointSettings)
    before, after = EndpointSettings(), EndpointSettings(**{name: value})
    told, started = (
        PoolAtWork(PoolSettings(seed=1), before),
        PoolAtWork(PoolSettings(seed=1), after),
    )
    told.tell(PoolSettings(seed=1), after)

    assert deep_state(told) == deep_state(started)
    assert deep_state(told) != deep_state(PoolAtWork(PoolSettings(seed=1), before))


def test_a_setting_that_is_copied_would_be_found_out():
    before, after = before_and_after("frozen_after_s")
    told, started = PoolAtWork(before), PoolAtWork(after)
    told.tell(after)
    for work in (told, started):
        work.router.fleet.copied = (before if work is told else after).frozen_after_s

    assert deep_state(told) != deep_state(started)


def test_only_what_is_named_in_the_settings_is_made_anew():
    work = PoolAtWork(PoolSettings(seed=1))
    traffic(work, n=50)
    policy, learner = work.router._policies.policy, work.router.learner
    work.tell(PoolSettings(seed=1, scrape_interval_s=1.0, externality_weight=5.0))
    assert (work.router._policies.policy, work.router.learner) == (policy, learner)

    work.tell(PoolSettings(seed=1, cost="ttft"))
    assert work.router._policies.policy is not policy
    assert work.router.learner is learner
