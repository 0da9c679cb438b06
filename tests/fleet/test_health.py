from builders import live_settings
from lodestar_extproc.fleet.failed_prompts import MAX_PROMPTS
from lodestar_extproc.fleet.health import Health
from lodestar_extproc.fleet.health_state import HealthState


def a_health(**changes) -> Health:
    health = Health(live_settings(**changes))
    health.add("a")
    return health


def test_a_failure_ejects_at_once_and_each_further_one_for_longer():
    health = a_health()
    health.failed("a", 0.0)
    assert health.state("a", 0.9) is HealthState.EJECTED
    assert health.state("a", 1.1) is HealthState.PROBATION

    health.failed("a", 2.0)
    assert health.state("a", 3.9) is HealthState.EJECTED
    assert health.state("a", 4.1) is HealthState.PROBATION


def test_failures_during_an_ejection_do_not_lengthen_it():
    health = a_health()
    for _ in range(50):
        health.failed("a", 0.5)

    assert health.state("a", 1.6) is HealthState.PROBATION


def test_one_success_ends_probation():
    health = a_health()
    health.failed("a", 0.0)
    health.succeeded("a", 1.5)

    assert health.state("a", 2.0) is HealthState.HEALTHY
    assert health.all_healthy


def test_what_was_sent_before_a_failure_does_not_excuse_it():
    health = a_health()
    health.failed("a", 0.0)
    health.succeeded("a", 0.5)

    assert health.state("a", 0.6) is HealthState.EJECTED
    assert health.state("a", 1.1) is HealthState.PROBATION


def test_one_error_answer_is_the_prompts_fault_three_in_a_row_the_endpoints():
    health = a_health()
    health.errored("a", 0.0)
    health.errored("a", 0.0)
    assert health.state("a", 0.0) is HealthState.HEALTHY

    health.succeeded("a", 0.0)
    health.errored("a", 0.0)
    health.errored("a", 0.0)
    health.errored("a", 0.0)
    assert health.state("a", 0.0) is HealthState.EJECTED


def test_probes_take_out_after_the_threshold_and_bring_back_through_probation():
    health = a_health(unhealthy_threshold=2, healthy_threshold=2)
    health.probed("a", healthy=False)
    assert health.state("a", 0.0) is HealthState.HEALTHY

    health.probed("a", healthy=False)
    assert health.state("a", 0.0) is HealthState.DOWN

    health.probed("a", healthy=True)
    assert health.state("a", 0.0) is HealthState.DOWN

    health.probed("a", healthy=True)
    assert health.state("a", 0.0) is HealthState.PROBATION


def test_a_frozen_endpoint_returns_with_its_first_token():
    health = a_health()
    health.froze("a")
    assert health.state("a", 99.0) is HealthState.FROZEN

    health.succeeded("a", 99.0)
    assert health.state("a", 99.0) is HealthState.HEALTHY


def test_a_frozen_endpoint_that_all_gave_up_on_is_tried_again_later_one_at_a_time():
    health = a_health()
    health.froze("a")
    health.gave_up("a", 10.0)

    assert health.state("a", 10.5) is HealthState.EJECTED
    assert health.state("a", 60.0) is HealthState.PROBATION


def test_an_unknown_endpoint_is_down_and_events_of_it_are_ignored():
    health = Health(live_settings())
    health.froze("x")
    health.succeeded("x", 0.0)
    health.failed("x", 0.0)
    health.probed("x", healthy=True)

    assert health.state("x", 0.0) is HealthState.DOWN


def test_one_prompt_counts_once_however_often_it_ends_in_an_error():
    health = a_health()
    for _ in range(9):
        health.errored("a", 0.0, 7)
    assert health.state("a", 0.0) is HealthState.HEALTHY

    health.errored("a", 0.0, 8)
    health.errored("a", 0.0, 9)
    assert health.state("a", 0.0) is HealthState.EJECTED


def test_a_prompt_that_broke_one_blames_no_second():
    health = a_health()
    health.add("b")
    assert health.failed("a", 0.0, 7)
    assert not health.failed("b", 1.0, 7)

    assert health.state("b", 1.0) is HealthState.HEALTHY


def test_a_first_token_does_not_excuse_wrong_answers_a_whole_one_does():
    health = a_health()
    for prompt in range(3):
        health.errored("a", 0.0, prompt)
    health.first_token("a", 3.0)
    assert health.state("a", 3.0) is HealthState.PROBATION

    health.succeeded("a", 4.0)
    assert health.state("a", 4.0) is HealthState.HEALTHY


def test_wrong_answers_keep_it_out_for_longer_each_time_up_to_a_bound():
    health, at_s, out_s = a_health(), 0.0, []
    for prompt in range(3):
        health.errored("a", at_s, prompt)
    for prompt in range(10, 16):
        began_s = at_s
        while health.state("a", at_s) is not HealthState.PROBATION:
            at_s += 0.5
        out_s.append(at_s - began_s)
        health.errored("a", at_s, prompt)

    assert out_s == [2.0, 8.0, 32.0, 60.0, 60.0, 60.0]


def test_one_that_asks_for_time_gets_it_within_bounds():
    health = a_health()
    health.add("b")
    for _ in range(20):
        health.succeeded("b", 0.0)
    health.refused("a", 0.0, 1, retry_after_s=1e9)

    assert health.state("a", 299.0) is HealthState.COOLING
    assert health.state("a", 301.0) is HealthState.PROBATION


def test_what_is_remembered_of_prompts_is_bounded_and_fades():
    health = a_health()
    for prompt in range(10_000):
        health.errored("a", prompt / 100, prompt)

    assert len(health._failed_prompts) <= MAX_PROMPTS
    assert list(health.failed_with(9_999, 100.0)) == ["a"]
    assert not list(health.failed_with(9_999, 200.0))
