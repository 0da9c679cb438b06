"""What was called otherwise before: read everywhere, told with its line, cured by the doctor."""

from __future__ import annotations

import json
import logging

import pytest
from ruamel.yaml import YAML

from builders import an_envoy_file, with_route_metadata
from json_patch import applied
from lodestar_extproc.check.as_json import as_json
from lodestar_extproc.check.doctor import check
from lodestar_extproc.config import ConfigError, PoolSettings, ServiceRef, read_envoy_config
from lodestar_extproc.config.old_spelling import names_before
from lodestar_extproc.config.overrides import KEYS_BEFORE
from lodestar_extproc.config.picker import read_picker_config
from lodestar_extproc.evaluation.contenders import NoContender, old_names, parse_contender
from lodestar_extproc.extproc.pools import Overrides
from lodestar_extproc.names import COST

INDENT = "\n          "
BLOCK = "cost: externality"
OLD_BLOCK = INDENT.join(("objective: ttft", "model: mlp", "fallback_candidates: 5"))
OLD_KEY = "x-lodestar-objective"


def line_of(path, text):
    return path.read_text().split(text)[0].count("\n") + 1


def test_the_names_of_before_are_these():
    before = {
        "objective": "cost",
        "model": "predictor",
        "fallback_candidates": "retry_candidates",
    }

    assert names_before(PoolSettings) == before
    assert KEYS_BEFORE == {OLD_KEY: COST}


def test_a_pool_is_read_by_its_old_names_and_each_is_told_with_its_line(tmp_path):
    path = an_envoy_file(tmp_path, (BLOCK, OLD_BLOCK))
    config = read_envoy_config(path)

    settings = config.pools[0].settings
    assert (settings.cost, settings.predictor, settings.retry_candidates) == ("ttft", "mlp", 5)
    line = line_of(path, "objective: ttft")
    assert [str(old) for old in config.old_spellings] == [
        f"line {line}: objective is now called cost",
        f"line {line + 1}: model is now called predictor",
        f"line {line + 2}: fallback_candidates is now called retry_candidates",
    ]


def test_a_file_that_says_all_by_its_present_name_is_told_nothing(tmp_path):
    assert not read_envoy_config(an_envoy_file(tmp_path, (BLOCK, "cost: ttft"))).old_spellings


@pytest.mark.parametrize(
    "both", [("objective: ttft", "cost: goodput"), ("cost: ttft", "objective: goodput")]
)
def test_both_names_at_once_are_an_error(tmp_path, both):
    path = an_envoy_file(tmp_path, (BLOCK, INDENT.join(both)))

    with pytest.raises(ConfigError, match="objective is now called cost: only one") as refused:
        read_envoy_config(path)
    assert refused.value.line == line_of(path, both[1])


def test_a_wrong_value_is_told_by_the_line_of_its_old_name(tmp_path):
    path = an_envoy_file(
        tmp_path, ("policy: learned", f"policy: lodestar_paper{INDENT}model: engine")
    )

    with pytest.raises(ConfigError, match="is made for predictor") as refused:
        read_envoy_config(path)
    assert refused.value.line == line_of(path, "model: engine")


def test_a_route_asks_by_the_old_key(tmp_path):
    path = an_envoy_file(tmp_path, with_route_metadata(OLD_KEY, "ttft"))
    config = read_envoy_config(path)

    (override,) = config.overrides
    (old,) = config.old_spellings
    assert override.cost == "ttft"
    assert str(old) == f"line {line_of(path, OLD_KEY)}: {OLD_KEY} is now called {COST}"


def test_a_route_that_asks_by_both_keys_is_an_error(tmp_path):
    both = with_route_metadata(OLD_KEY, f"ttft}}, {{key: {COST}, value: ttft")

    with pytest.raises(ConfigError, match=f"has both {COST} and what it was called before"):
        read_envoy_config(an_envoy_file(tmp_path, both))


def test_a_settings_file_is_read_by_its_old_names(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("policy: learned\nobjective: goodput\n")
    config = read_picker_config(ServiceRef("engines", "default"), path)

    assert config.pools[0].settings.cost == "goodput"
    assert config.read_again() == config
    (old,) = config.read_again().old_spellings
    assert str(old) == "line 2: objective is now called cost"


def test_a_streams_metadata_is_read_by_its_old_key():
    assert Overrides.of({OLD_KEY: "ttft", "other": "x"}) == Overrides(cost="ttft")
    assert Overrides.of({OLD_KEY: "ttft", COST: "goodput"}) == Overrides(cost="goodput")


def test_bench_takes_the_old_names():
    text = "learned:objective=ttft+model=mlp"

    assert parse_contender(text).settings == PoolSettings(cost="ttft", predictor="mlp")
    assert old_names(text) == {"objective": "cost", "model": "predictor"}
    assert not old_names("learned:cost=ttft")
    with pytest.raises(NoContender, match="sets cost twice"):
        parse_contender("learned:objective=ttft+cost=ttft")


@pytest.mark.parametrize(
    "edit", [(BLOCK, OLD_BLOCK), with_route_metadata(OLD_KEY, "ttft")], ids=("settings", "route")
)
def test_the_doctor_hints_at_the_new_names_and_its_cure_says_the_same_by_them(tmp_path, edit):
    path = an_envoy_file(tmp_path, edit)
    report = check(path)

    assert not report.findings
    assert report.hints
    document = YAML(typ="safe").load(path)
    for hint in json.loads(json.dumps(as_json(report)))["hints"]:
        assert "is now called" in hint["problem"]
        document = applied(document, hint["cure"])
    cured = tmp_path / "cured.yaml"
    cured.write_text(json.dumps(document))
    before, after = read_envoy_config(path), read_envoy_config(cured)
    assert not after.old_spellings
    assert before.pools == after.pools
    assert before.overrides == after.overrides


def test_bench_warns_once_of_each_old_name(caplog):
    from lodestar_extproc.evaluation.bench import warn_of_old_names  # noqa: PLC0415  (plots)

    with caplog.at_level(logging.WARNING):
        warn_of_old_names(("learned:objective=ttft", "learned:cost=ttft"))
    assert [r.getMessage() for r in caplog.records] == [
        "learned:objective=ttft: objective is now called cost"
    ]
