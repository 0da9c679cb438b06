import sys
from pathlib import Path

import pytest

from lodestar_extproc.config import EndpointSettings, PoolSettings, SettingError, settings_of
from lodestar_extproc.config.docs import settings_page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_settings_page_is_what_the_code_says():
    assert PAGE.read_text() == settings_page(), (
        "run: python -m lodestar_extproc.config > docs/settings.md"
    )


@pytest.mark.parametrize("owner", [PoolSettings, EndpointSettings])
def test_every_setting_says_what_it_does_and_takes_its_own_default(owner):
    for setting in settings_of(owner).values():
        assert setting.text.endswith(".")
        assert "|" not in setting.text + setting.allowed, "would break the page's table"
        assert setting.parse(setting.default) == setting.default


def test_every_number_has_a_unit_or_is_a_count_a_share_or_a_weight():
    endings = ("_s", "_tokens", "_ratio", "_samples", "_threshold", "_weight", "_port", "_budget")
    others = {"retry_candidates", "bytes_per_token", "eviction_depth", "seed"}
    for setting in [*settings_of(PoolSettings).values(), *settings_of(EndpointSettings).values()]:
        if setting.kind in (int, float):
            assert setting.name.endswith(endings) or setting.name in others


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("policy", "fastest", '"fastest" is not one of random,'),
        ("policy", 7, "7 is not one of random,"),
        ("policy", None, "null is not one of random,"),
        ("fallback_policy", "learned", '"learned" is not one of random,'),
        ("shadow_policies", "random", '"random" is not a list of any of'),
        ("shadow_policies", ["random", "x"], '"x" does not belong to a list of any of'),
        ("shadow_policies", ["random", "random"], "it names one of its items twice"),
        ("scrape_interval_s", 0, "0 is not a number of at least 0.01"),
        ("scrape_interval_s", "0.2s", '"0.2s" is not a number of at least 0.01'),
        ("scrape_interval_s", True, "true is not a number of at least 0.01"),
        ("scrape_interval_s", float("nan"), "nan is not a number"),
        ("request_timeout_s", float("inf"), "inf is not a number above 0"),
        ("exploration_ratio", 1.5, "1.5 is not a number from 0 to 1"),
        ("retry_candidates", 1, "1 is not a whole number from 2 to 16"),
        ("retry_candidates", 2.5, "2.5 is not a whole number from 2 to 16"),
        ("strict", "yes", '"yes" is not true or false'),
        ("strict", 1, "1 is not true or false"),
        ("metrics_path", "metrics", '"metrics" is not text beginning with /'),
        ("checkpoint_path", "", '"" is not text, or null'),
        ("ttft_slo_s", {"a": 1}, "a mapping is not a number above 0, or null"),
    ],
)
def test_impossible_value_is_refused_with_what_is_allowed(name, value, problem):
    with pytest.raises(SettingError) as refused:
        settings_of(PoolSettings)[name].parse(value)

    assert refused.value.name == name
    assert problem in refused.value.problem


def test_whole_number_written_as_envoy_dumps_it_is_taken():
    assert settings_of(PoolSettings)["burn_in_samples"].parse(50.0) == 50


def test_settings_made_in_code_are_checked_too():
    with pytest.raises(SettingError, match="healthy_threshold: 0"):
        PoolSettings(healthy_threshold=0)


def test_metrics_that_would_always_be_stale_are_refused():
    with pytest.raises(SettingError, match="scrape_stale_s: 1 is less than scrape_interval_s"):
        PoolSettings(scrape_interval_s=5.0, scrape_stale_s=1.0)


def test_the_mlp_without_its_library_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed

    with pytest.raises(SettingError, match=r"pip install 'lodestar-extproc\[mlp\]'"):
        PoolSettings(predictor="mlp")
    assert PoolSettings().predictor == "engine"
