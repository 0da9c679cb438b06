"""What the router says of each request that ended: how, who served, and what it teaches."""

import pytest

from builders import Recorder, a_request, a_router, an_ended_request
from lodestar_extproc.completion import AnswerForm, AnswerReport, Completion, FirstToken, Outcome
from lodestar_extproc.fleet.health_state import HealthState
from lodestar_extproc.routing.ended_request import EndedRequest, Ending, Label

SERVED = Outcome.SERVED


class Pool:
    """A router and the one request that is watched."""

    def __init__(self, *, streaming: bool = True, **changes) -> None:
        self.recorder = Recorder()
        self.router = a_router(3, listeners=[self.recorder], **changes)
        self.decision = self.router.route(
            a_request(streaming=streaming), request_id="r", stream_id="s", at_s=10.0
        )
        self.chosen, self.second, self.third = self.decision.addresses

    def first_token(self, at_s: float = 10.5, served: str | None = None, **changes) -> None:
        event = FirstToken(self.decision.decision_id, at_s, served, **changes)
        self.router.first_token(event)

    def end(self, outcome: Outcome = SERVED, **changes) -> EndedRequest:
        values = {"decision_id": self.decision.decision_id, "served": self.chosen} | changes
        assert self.router.complete(Completion(12.0, outcome, **values))
        [request] = self.recorder.ended_requests
        return request

    @property
    def n_learned(self) -> int:
        return self.router.learner.status().n_samples


# -- how it ended --


@pytest.mark.parametrize(
    ("outcome", "changes", "ending"),
    [
        (SERVED, {"response_code": 200}, Ending.SERVED),
        (SERVED, {}, Ending.SERVED),
        (SERVED, {"response_code": 400}, Ending.REFUSED),
        (SERVED, {"response_code": 413}, Ending.REFUSED),
        (SERVED, {"response_code": 422}, Ending.REFUSED),
        (SERVED, {"response_code": 451}, Ending.REFUSED),
        (SERVED, {"response_code": 302}, Ending.TURNED_AWAY),
        (SERVED, {"response_code": 401}, Ending.TURNED_AWAY),
        (SERVED, {"response_code": 403}, Ending.TURNED_AWAY),
        (SERVED, {"response_code": 404}, Ending.TURNED_AWAY),
        (SERVED, {"response_code": 408}, Ending.TURNED_AWAY),
        (SERVED, {"response_code": 429}, Ending.TURNED_AWAY),
        (Outcome.FAILED, {"response_code": 503}, Ending.TURNED_AWAY),
        (Outcome.FAILED, {"response_code": 529}, Ending.TURNED_AWAY),
        (SERVED, {"response_code": 204}, Ending.EMPTY),
        (SERVED, {"response_code": 200, "is_empty": True}, Ending.EMPTY),
        (SERVED, {"response_code": 200, "form": AnswerForm.NOTHING}, Ending.EMPTY),
        (SERVED, {"response_code": 200, "form": AnswerForm.FOREIGN}, Ending.EMPTY),
        (SERVED, {"response_code": 200, "form": AnswerForm.UNFINISHED}, Ending.UNFINISHED),
        (SERVED, {"response_code": 200, "form": AnswerForm.UNREADABLE}, Ending.UNREADABLE),
        (SERVED, {"response_code": 200, "form": AnswerForm.ONE_PIECE}, Ending.SERVED),
        (Outcome.FAILED, {"response_code": 500}, Ending.ERRORED),
        (Outcome.FAILED, {"response_code": 503, "flags": ("UF",)}, Ending.BROKEN_OFF),
        (Outcome.FAILED, {}, Ending.BROKEN_OFF),
        (Outcome.CLIENT_GONE, {"flags": ("DC",)}, Ending.CLIENT_GONE),
        (Outcome.EXPIRED, {}, Ending.EXPIRED),
        (SERVED, {"decision_id": "", "stream_id": "s"}, Ending.UNUSED),
        (Outcome.FAILED, {"decision_id": "", "stream_id": "s"}, Ending.UNUSED),
    ],
)
def test_one_ending_is_told_from_another_in_one_place(outcome, changes, ending):
    request = Pool().end(outcome, **changes)

    assert request.ending is ending
    assert request.used == (ending is not Ending.UNUSED)


def test_an_error_inside_an_answer_is_the_engines():
    pool = Pool()
    pool.first_token()
    pool.router.report(AnswerReport(pool.decision.decision_id, failed=True, prompt_tokens=70))
    request = pool.end(Outcome.CLIENT_GONE, response_code=200, flags=("DC",))

    assert request.ending is Ending.ERRORED
    assert request.completion.prompt_tokens == 70


def test_a_prompt_is_in_a_cache_if_a_token_came_or_a_whole_answer():
    assert Pool().end().prompt_computed
    assert not Pool().end(Outcome.FAILED).prompt_computed
    assert not Pool().end(decision_id="", stream_id="s").prompt_computed
    broken = Pool()
    broken.first_token()
    assert broken.end(Outcome.FAILED).prompt_computed


@pytest.mark.parametrize(
    "changes",
    [
        {"response_code": 429},
        {"response_code": 400},
        {"response_code": 204},
        {"form": AnswerForm.FOREIGN},
        {"form": AnswerForm.UNREADABLE},
    ],
)
def test_only_what_was_served_is_computed_timed_and_learned(changes):
    pool = Pool(sees_first_tokens=False)
    request = pool.end(ttft_s=0.2, **changes)

    assert not request.prompt_computed
    assert request.ttft_s is None
    assert pool.n_learned == 0


@pytest.mark.parametrize("form", [AnswerForm.UNREADABLE, AnswerForm.FOREIGN, AnswerForm.ONE_PIECE])
def test_a_first_token_that_is_no_streams_ends_prefill_and_teaches_nothing(form):
    pool = Pool()
    pool.first_token(form=form)
    assert pool.router.fleet.everything(11.0).prefill_requests.sum() == 0

    request = pool.end(ttft_s=0.4)
    assert pool.n_learned == 0
    assert request.ttft_s is None
    assert request.prompt_computed == (form is AnswerForm.ONE_PIECE)


def test_a_first_token_sooner_than_any_engine_computes_is_none():
    pool = Pool()
    pool.first_token(at_s=10.0001)
    request = pool.end()

    assert request.label is Label.IMPLAUSIBLE
    assert not request.prompt_computed
    assert pool.n_learned == 0


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "served"),
        ({"response_code": 429}, "refused"),
        ({"response_code": 422}, "refused"),
        ({"response_code": 204}, "empty"),
        ({"form": AnswerForm.UNREADABLE}, "unreadable"),
        ({"form": AnswerForm.UNFINISHED}, "failed"),
    ],
)
def test_everyone_is_told_what_the_answer_was(changes, outcome):
    assert Pool().end(**changes).completion.outcome == outcome


# -- who served, and when its first token came --


def test_a_first_token_that_was_seen_is_the_ttft():
    pool = Pool()
    pool.first_token(at_s=10.4, served=pool.chosen)

    assert pool.end(ttft_s=0.1).ttft_s == pytest.approx(0.4)


def test_without_one_it_is_what_envoy_measured():
    assert Pool().end(ttft_s=0.1).ttft_s == 0.1


def test_the_time_of_an_answer_in_one_piece_is_no_ttft():
    assert Pool(streaming=False).end(ttft_s=0.1).ttft_s is None


def test_who_served_is_whom_the_end_names():
    pool = Pool()
    pool.first_token(served=pool.second)

    assert pool.end(served=pool.third).served == pool.third


def test_where_the_end_names_nobody_it_is_whom_the_first_token_named():
    pool = Pool(shadow=True)  # so that no retry is to blame for what follows
    pool.first_token(served=pool.second)
    request = pool.end(Outcome.FAILED, served=None, flags=("UC",))

    assert request.served == pool.second
    assert pool.router.fleet.health.state(pool.second, 12.0) is HealthState.EJECTED


def test_nobody_knows_who_served_a_request_that_reached_no_endpoint():
    assert Pool().end(Outcome.FAILED, served=None).served is None


def test_the_generation_lasts_from_the_first_token_to_the_end():
    pool = Pool()
    pool.first_token(at_s=10.5)

    assert pool.end().generation_s == pytest.approx(1.5)
    assert Pool().end(ttft_s=0.5, duration_s=3.0).generation_s == pytest.approx(2.5)
    assert Pool().end().generation_s is None


# -- what it teaches, or why it teaches nothing --


def test_a_first_token_from_where_the_request_was_sent_is_learned_at_once():
    pool = Pool()
    pool.first_token(served=pool.chosen)
    assert pool.n_learned == 1

    assert pool.end(ttft_s=0.4).label is Label.FIRST_TOKEN
    assert pool.n_learned == 1


def test_what_was_learned_at_the_first_token_stays_learned_however_it_ends():
    pool = Pool()
    pool.first_token()

    assert pool.end(Outcome.FAILED).label is Label.FIRST_TOKEN


def test_a_retry_is_learned_at_the_end_by_the_last_attempts_time():
    pool = Pool()
    pool.first_token(served=pool.second)
    [first_token] = pool.recorder.first_tokens
    assert first_token.label is Label.SERVED_ELSEWHERE

    request = pool.end(served=pool.second, attempts=2, ttft_s=0.3)
    assert request.label is Label.END
    assert request.ttft_s == pytest.approx(0.5)  # with the failed attempt
    assert pool.n_learned == 1


def test_a_retry_that_envoy_did_not_time_teaches_nothing():
    pool = Pool()
    pool.first_token(served=pool.second)

    assert pool.end(served=pool.second, attempts=2).label is Label.SERVED_ELSEWHERE
    assert pool.n_learned == 0


def test_without_an_observer_the_end_teaches():
    pool = Pool(sees_first_tokens=False)

    assert pool.end(ttft_s=0.3).label is Label.END
    assert pool.n_learned == 1


def test_a_client_that_leaves_first_teaches_a_lower_bound():
    pool = Pool()
    request = pool.end(Outcome.CLIENT_GONE, duration_s=30.0)

    assert (request.label, request.waited_s) == (Label.CENSORED, 30.0)
    assert pool.n_learned == 1


@pytest.mark.parametrize(
    ("pool", "outcome", "changes", "label"),
    [
        ({}, SERVED, {"decision_id": "", "stream_id": "s", "ttft_s": 0.3}, Label.UNUSED),
        ({"streaming": False}, SERVED, {"ttft_s": 0.3}, Label.UNSTREAMED),
        ({"streaming": False}, Outcome.CLIENT_GONE, {}, Label.UNSTREAMED),
        ({}, SERVED, {"ttft_s": 0.3}, Label.UNSEEN),
        ({"sees_first_tokens": False}, SERVED, {}, Label.UNTIMED),
        (
            {"sees_first_tokens": False},
            SERVED,
            {"ttft_s": 0.3, "served": "10.9.9.9:1"},
            Label.NO_CANDIDATE,
        ),
        (
            {"sees_first_tokens": False},
            SERVED,
            {"ttft_s": 0.004, "response_code": 400},
            Label.REFUSED,
        ),
        ({}, Outcome.FAILED, {"flags": ("UC",)}, Label.FAILED),
        ({}, Outcome.FAILED, {"response_code": 500}, Label.FAILED),
        ({}, Outcome.EXPIRED, {}, Label.EXPIRED),
    ],
)
def test_why_nothing_was_learned_is_said(pool, outcome, changes, label):
    watched = Pool(**pool)

    assert watched.end(outcome, **changes).label is label
    assert watched.n_learned == 0


def test_a_keep_alive_before_the_first_token_spoils_envoys_time():
    pool = Pool()
    pool.first_token(served=pool.second, body_began_before=True)

    request = pool.end(served=pool.second, attempts=2, ttft_s=0.01)
    assert request.label is Label.BODY_BEGAN_BEFORE
    assert pool.n_learned == 0


def test_a_client_that_leaves_after_a_retrys_first_token_teaches_nothing():
    pool = Pool()
    pool.first_token(served=pool.second)

    assert pool.end(Outcome.CLIENT_GONE, served=pool.second).label is Label.CLIENT_GONE
    assert pool.n_learned == 0


def test_in_shadow_mode_whoever_serves_teaches_if_it_was_a_candidate():
    pool = Pool(shadow=True)
    pool.first_token(served=pool.third)
    assert pool.end(served=pool.third).label is Label.FIRST_TOKEN
    assert pool.n_learned == 1

    stranger = Pool(shadow=True)
    stranger.first_token(served="10.9.9.9:1")
    assert stranger.end(served="10.9.9.9:1").label is not Label.FIRST_TOKEN
    assert stranger.n_learned == 0


# -- who failed on the way --


def test_endpoints_that_a_retry_went_past_failed_and_are_told_once():
    pool = Pool()
    pool.first_token(served=pool.third)
    [first_token] = pool.recorder.first_tokens

    assert first_token.failed == (pool.chosen, pool.second)
    assert pool.end(served=pool.third, attempts=3).failed == ()


def test_without_a_first_token_the_number_of_attempts_tells_who_failed():
    assert Pool().end(Outcome.FAILED, attempts=1).failed == ()
    pool = Pool()
    assert pool.end(served=pool.third, attempts=3).failed == (pool.chosen, pool.second)


def test_what_nobody_heeds_has_no_retries():
    pool = Pool(shadow=True)
    pool.first_token(served=pool.third)

    assert pool.recorder.first_tokens[0].failed == ()
    assert pool.end(served=pool.third, attempts=3).failed == ()
    assert Pool().end(decision_id="", stream_id="s", attempts=3).failed == ()


# -- one record --


def test_every_listener_is_given_the_same_record():
    first, second = Recorder(), Recorder()
    router = a_router(listeners=[first, second])
    decision = router.route(a_request(), request_id="r", at_s=0.0)
    router.complete(Completion(1.0, SERVED, decision_id=decision.decision_id))

    assert first.ended_requests[0] is second.ended_requests[0]
    assert first.ended_requests[0].decision is decision


def test_a_record_is_a_function_of_what_was_told():
    decision = a_router().route(a_request(), request_id="r", at_s=0.0)
    event = FirstToken(decision.decision_id, 0.5, decision.address)
    completion = Completion(1.0, SERVED, decision_id=decision.decision_id)

    once, again = (an_ended_request(decision, completion, event) for _ in range(2))
    assert once == again


def test_a_record_can_let_go_of_its_prompt():
    request = Pool().end()

    assert request.decision.candidates.request.block_hashes
    assert request.without_prompt().decision.candidates.request.block_hashes == ()
