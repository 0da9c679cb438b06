"""Trials in virtual time: what the policies of `serve` do on simulated fleets."""

import dataclasses
import math
from pathlib import Path

import pytest

from lodestar_extproc.evaluation.bench_names import (
    AGENT_CELLS,
    AGENT_WORKLOADS,
    SCENARIO_NAMES,
    STANDARD_FLEETS,
    WORKLOADS,
)
from lodestar_extproc.evaluation.contenders import NoContender, parse_contender
from lodestar_extproc.evaluation.fleets import find_fleet
from lodestar_extproc.evaluation.saturation import bisect_rate, known_saturation, requests_at
from lodestar_extproc.evaluation.scenarios import SCENARIOS
from lodestar_extproc.evaluation.study import Study, run_all
from lodestar_extproc.evaluation.trial import Cell, Trial, generate, run_trial, simulate
from lodestar_extproc.evaluation.workloads.catalog import GENERATED, TRACES
from lodestar_extproc.evaluation.workloads.sequel import Part, Sequel

NOWHERE = Path("no-traces")


def a_trial(*contenders, workload="prefix50", fleet="a30x8", rate=13.0, n=600, **more):
    scenario = more.pop("scenario", "steady")
    cell = Cell(workload, fleet, scenario, None, (rate,) * len(SCENARIOS[scenario].workloads))
    return Trial(cell, more.pop("seed", 1), n, contenders, NOWHERE, **more)


def mean(runs, name):
    return sum(getattr(run, name) for run in runs) / len(runs)


def figures(trial):
    return {o.contender: o.figures for o in run_trial(trial)}


def test_policies_meet_the_same_arrivals():
    trial = a_trial("lmetric", "round_robin", n=200)
    arrivals = generate(trial)
    one, other = (simulate(trial, parse_contender(c), arrivals) for c in trial.contenders)

    assert [r.arrived_s for r in one] == [r.arrived_s for r in other]
    assert [r.prompt_tokens for r in one] == [r.prompt_tokens for r in other]
    assert [r.endpoint for r in one] != [r.endpoint for r in other]


def test_a_trial_can_be_repeated():
    one, other = (figures(a_trial("learned", n=300))["learned"] for _ in range(2))

    assert dataclasses.replace(one, simulated_per_s=0.0) == dataclasses.replace(
        other, simulated_per_s=0.0
    )


def test_the_learned_policy_beats_the_papers_comparator_and_knows_its_error():
    found = figures(a_trial("prefix_cache", "learned", n=900, hindsight=True))
    learned = found["learned"]

    assert learned.ttft_mean_s < 0.8 * found["prefix_cache"].ttft_mean_s
    assert learned.model_share > 0.95
    assert learned.error_median_ratio < 0.15
    assert 0.7 < learned.coverage_ratio < 0.9
    assert 0.3 < learned.agreement_ratio < 1.0
    assert learned.regret_s < 0.1
    assert found["prefix_cache"].model_share is None


def test_the_clairvoyant_foresees_the_ttft_up_to_the_noise():
    found = figures(a_trial("clairvoyant_ttft", n=200))["clairvoyant_ttft"]

    assert found.error_median_ratio < 0.05


def test_seeing_every_token_changes_little():
    found = figures(a_trial("learned", "learned@every_token", n=300))
    ratio = found["learned@every_token"].ttft_mean_s / found["learned"].ttft_mean_s

    assert ratio == pytest.approx(1.0, abs=0.1)
    assert ratio != 1.0


@pytest.mark.parametrize("name", ["lmetric_by_speed", "conductor"])
def test_those_that_know_the_speed_serve_a_mixed_fleet_better(name):
    found = figures(a_trial(name, "lmetric", fleet="h100x3+l20x3+a30x2", rate=55.0, n=1000))

    assert found[name].ttft_mean_s < 0.9 * found["lmetric"].ttft_mean_s


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense", "there are learned"),
        ("learned:predictor=oracle", "predictor"),
        ("learned:colour=red", "sets nothing"),
        ("learned:exploration_ratio=7", "exploration_ratio"),
    ],
)
def test_a_contender_that_cannot_be_says_why(text, complaint):
    with pytest.raises(NoContender, match=complaint):
        parse_contender(text)


def test_a_contender_takes_settings_of_the_pool():
    contender = parse_contender(
        "learned:predictor=bayesian_linear+exploration_ratio=0.02@every_token"
    )

    assert contender.settings.predictor == "bayesian_linear"
    assert contender.settings.exploration_ratio == 0.02
    assert contender.every_token


@pytest.mark.parametrize("scenario", sorted(set(SCENARIOS) - {"workload_shift"}))
def test_every_scenario_serves_every_request_it_should(scenario):
    found = figures(a_trial("learned", n=150, rate=9.0, scenario=scenario))["learned"]
    may_fail = scenario in ("aborts", "failures")

    assert (found.failed == 0) or may_fail
    assert math.isfinite(found.ttft_mean_s)


def test_a_join_is_used_and_a_leave_is_not():
    for scenario, number, before, after in (("join", 7, 0.0, 0.05), ("leave", 3, 0.05, 0.0)):
        trial = a_trial("learned", n=600, rate=9.0, scenario=scenario)
        records = simulate(trial, parse_contender("learned"), generate(trial))
        change_s = trial.run_s / 3
        shares = [
            sum(r.endpoint == number for r in part) / len(part)
            for part in (
                [r for r in records if r.arrived_s < change_s],
                [r for r in records if r.arrived_s >= change_s],
            )
        ]

        assert (shares[0] > before) if before else (shares[0] == 0)
        assert (shares[1] > after) if after else (shares[1] == 0)


def test_a_slow_instance_gets_fewer_requests():
    trial = a_trial("learned", n=900, rate=10.0, scenario="slow")
    records = simulate(trial, parse_contender("learned"), generate(trial))
    late = [r for r in records if r.arrived_s > 0.6 * trial.run_s]

    assert sum(r.endpoint == 2 for r in late) / len(late) < 0.09


def test_false_labels_do_not_ruin_it():
    honest, lied_to = (
        figures(a_trial("learned", n=900, scenario=scenario))["learned"]
        for scenario in ("steady", "false_labels")
    )

    assert lied_to.ttft_mean_s < 1.2 * honest.ttft_mean_s


def test_a_study_runs_every_cell_with_every_seed_and_finds_its_rates():
    study = Study(
        workloads=("prefix30", "prefix50"),
        fleets=("a30x8",),
        scenarios=("steady", "slow"),
        contenders=("round_robin",),
        seeds=(4, 5),
        traces=NOWHERE,
        loads=(0.5,),
        n_requests=120,
    )
    trials = study.trials(note=lambda _: pytest.fail("measured what is shipped"))
    ended = list(run_all(trials, 1))

    assert len(ended) == 8
    assert {t.seed for t, _ in ended} == {4, 5}
    assert trials[0].cell.rates_per_s[0] == 0.5 * known_saturation()["a30x8"]["prefix30"]
    assert all(len(outcomes) == 1 for _, outcomes in ended)


def test_processes_give_what_one_gives():
    study = Study(("prefix50",), ("a30x2",), ("steady",), ("lmetric",), (1, 2), NOWHERE,
                  rate_per_s=2.0, n_requests=100)  # fmt: skip
    trials = study.trials(note=lambda _: None)
    one, two = ({t.seed: o[0].figures.ttft_mean_s for t, o in run_all(trials, n)} for n in (1, 2))

    assert one == two


def test_the_shipped_saturation_covers_all_standard_cells():
    known = known_saturation()

    assert all(set(known[fleet]) == set(WORKLOADS) for fleet in STANDARD_FLEETS)
    assert all(workload in known[fleet] for workload, fleet in AGENT_CELLS)


def test_bisection_finds_where_stability_ends():
    assert bisect_rate(lambda rate: rate < 40.0) == pytest.approx(40.0, rel=0.012)
    assert requests_at(1.0) == 5000
    assert requests_at(20.0) == 8000


def test_the_names_in_the_help_are_those_that_there_are():
    assert set(SCENARIO_NAMES) == set(SCENARIOS)
    assert {*WORKLOADS, *AGENT_WORKLOADS} == {*TRACES, *GENERATED}
    assert all(find_fleet(name).specs for name in STANDARD_FLEETS)


def test_a_promised_ttft_is_kept_or_not():
    found = figures(a_trial("lmetric", "lmetric:ttft_slo_s=0.3", "lmetric:ttft_slo_s=60", n=200))
    met = [f.slo_met_ratio for f in found.values()]

    assert met[0] is None
    assert 0.0 < met[1] < met[2] == 1.0


@pytest.mark.slow  # Twelve thousand requests of a learned policy.
def test_costs_reach_what_they_are_for():
    contenders = (
        "learned:ttft_slo_s=0.5",
        "learned:cost=goodput+ttft_slo_s=0.5",
        "learned:cost=end_to_end",
    )
    runs = [
        list(figures(a_trial(*contenders, rate=16.5, n=1000, seed=seed)).values())
        for seed in (1, 2, 3, 4)
    ]
    plain, goodput, end_to_end = zip(*runs, strict=True)

    assert mean(goodput, "slo_met_ratio") > mean(plain, "slo_met_ratio") + 0.02
    assert mean(end_to_end, "e2e_mean_s") < 0.95 * mean(plain, "e2e_mean_s")
    assert mean(end_to_end, "tpot_mean_s") < 0.95 * mean(plain, "tpot_mean_s")


def test_a_workload_that_ends_early_ends_the_run():
    trial = a_trial("lmetric", n=200)
    early = Sequel([Part(generate(trial), lasts_s=5.0)])
    records = simulate(trial, parse_contender("lmetric"), early)

    assert 0 < len(records) < 200
    assert all(math.isfinite(r.e2e_s) for r in records)
