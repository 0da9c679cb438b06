"""What engines keep by id: who has it, the prompt it stands for, and the load it is."""

from __future__ import annotations

import pytest

from builders import a_prompt, a_request, a_router
from lodestar_extproc.completion import AnswerForm, Completion, KeptAnswer, KeptState, Outcome
from lodestar_extproc.decision import Reason
from lodestar_extproc.request import Keeping, RequestKind, Subset, hash_blocks, name_key
from lodestar_extproc.routing import kept, look_ups
from lodestar_extproc.routing.kept_answers import KEPT_FOR_S, KeptAnswers


def a_response(prompt: bytes = b"", *, continues: str | None = None, **changes):
    keeping = {"keeps_answer": True, "continues": name_key(continues) if continues else None}
    fields = {k: changes.pop(k) for k in tuple(changes) if k in Keeping._fields}
    changes = {"kind": RequestKind.RESPONSES} | changes
    return a_request(prompt, keeping=Keeping(**keeping | fields), **changes)


def route(router, request, at_s=0.0, **kw):
    return router.route(request, request_id="", at_s=at_s, **kw)


def tell(router, decision, name, state=KeptState.ENDED, at_s=0.1, served=None, tokens=None):
    served = served or decision.address
    router.kept(KeptAnswer(decision.decision_id, at_s, name, state, served, tokens))


def end(router, decision, at_s=1.0, outcome=Outcome.SERVED, **changes):
    changes = {"served": decision.address, "response_code": 200} | changes
    router.complete(Completion(at_s, outcome, decision_id=decision.decision_id, **changes))


def answered(router, request, name, at_s=0.0, tokens=None, **changes):
    """A request and its whole answer."""
    decision = route(router, request, at_s)
    tell(router, decision, name, at_s=at_s, tokens=tokens)
    end(router, decision, at_s=at_s, **changes)
    return decision


def in_flight(router) -> float:
    snapshot = router.fleet.everything(0.0)
    return float((snapshot.prefill_requests + snapshot.decode_requests).sum())


def test_it_goes_where_the_answer_is_kept_whatever_the_policy():
    router = a_router(5, policy="round_robin")
    first = answered(router, a_response(a_prompt(2000)), "resp_1")
    for turn in range(20):
        again = route(router, a_response(b"and?", continues="resp_1"), at_s=1.0 + turn)
        assert again.address == first.address
        assert again.ranking.reason is Reason.KEEPER
        assert again.ranking.propensity == 1.0
        # A retry may still go past it.
        assert sorted(again.addresses) == sorted(first.addresses)
        end(router, again, at_s=1.5 + turn)


def test_the_whole_prompt_is_counted_with_the_reply():
    router = a_router(3)
    prompt = a_prompt(10_000)
    answered(router, a_response(prompt), "resp_1", tokens=300)
    decision = route(router, a_response(b"and then?" * 8, continues="resp_1"))
    request = decision.candidates.request
    assert request.prompt_tokens == pytest.approx(10_000 + 300 + 18)
    assert request.prompt_bytes == pytest.approx(40_000 + 1200 + 72)
    assert request.block_hashes[: len(prompt) // 64] == hash_blocks(prompt)
    assert len(request.block_hashes) == pytest.approx(request.prompt_bytes / 64, abs=3)
    assert decision.candidates.matched_tokens[decision.chosen] == 10_000


def test_a_chain_of_turns_matches_all_that_was_said_and_keeps_one_copy_of_it():
    router = a_router(3)
    answered(router, a_response(a_prompt(4000)), "resp_0", tokens=0)
    for turn in range(1, 30):
        said = a_prompt(160, seed=turn)
        decision = answered(
            router, a_response(said, continues=f"resp_{turn - 1}"), f"resp_{turn}", tokens=0
        )
        request = decision.candidates.request
        assert request.prompt_tokens == 4000 + 160 * turn
        assert decision.candidates.matched_tokens[decision.chosen] == 4000 + 160 * (turn - 1)
    assert router.kept_answers._memory.n_blocks == len(request.block_hashes)
    # Two answers to one turn: the other branch is another prompt.
    other = route(router, a_response(a_prompt(160, seed=99), continues="resp_3"))
    assert other.candidates.request.prompt_tokens == 4000 + 160 * 4
    assert other.candidates.matched_tokens[other.chosen] == 4000 + 160 * 3


@pytest.mark.parametrize(
    "change", [{"seed": 7}, {"head_key": 5, "head_bytes": 400, "head_blocks": 6}]
)
def test_another_model_salt_or_head_finds_nothing_of_it(change):
    router = a_router(3)
    first = answered(router, a_response(a_prompt(4000), head_key=1, head_bytes=800), "resp_1")
    said = a_prompt(200, seed=5)
    request = a_response(said, continues="resp_1", **change)
    decision = route(router, request)
    assert decision.address == first.address
    assert decision.candidates.matched_tokens.max() == 0
    expected = 4000 + 200 - (200 if "head_key" in change else 0)
    assert decision.candidates.request.prompt_tokens == expected


def test_the_same_head_again_is_not_counted_twice():
    router = a_router(3)
    head = a_prompt(800, seed=3)
    fields = {"head_key": 9, "head_bytes": len(head), "head_blocks": len(head) // 64}
    answered(router, a_response(head + a_prompt(1600), **fields), "resp_1")
    request = a_response(head + a_prompt(160, seed=4), continues="resp_1", **fields)
    decision = route(router, request)
    assert decision.candidates.request.prompt_tokens == 800 + 1600 + 160
    assert decision.candidates.matched_tokens[decision.chosen] == 2400


def test_the_engines_count_tells_whether_the_head_of_an_earlier_turn_is_taken():
    router = a_router(3)
    fields = {"head_key": 9, "head_bytes": 3200, "head_blocks": 50}
    head = a_prompt(800, seed=3)
    said = a_response(a_prompt(40, seed=5), continues="resp_1", streaming=False)
    counts = []
    for told in (None, 1660, 840, None, 1660, None):
        answered(router, a_response(head + a_prompt(800), **fields), "resp_1")
        decision = answered(router, said, "resp_2", prompt_tokens=told)
        counts.append(decision.candidates.request.prompt_tokens)
        matched = decision.candidates.matched_tokens[decision.chosen]
        assert bool(matched > 1500) is (counts[-1] == 1640)
    assert counts == [1640, 1640, 1640, 840, 840, 1640]


def test_an_unknown_id_is_a_request_like_any_other():
    router = a_router(3, policy="round_robin")
    decisions = [
        route(router, a_response(b"and?" * 100, continues="resp_9"), at_s=float(i))
        for i in range(6)
    ]
    assert len({d.address for d in decisions}) == 3
    assert {d.ranking.reason for d in decisions} == {Reason.POLICY}
    assert {d.candidates.request.prompt_tokens for d in decisions} == {100.0}


def test_what_an_endpoint_kept_is_forgotten_when_it_has_left():
    router = a_router(3)
    first = answered(router, a_response(a_prompt(4000)), "resp_1")
    everyone = router.fleet.endpoints
    router.set_endpoints([e for e in everyone if e.address != first.address])
    again = route(router, a_response(b"and?", continues="resp_1"), at_s=1.0)
    assert again.address != first.address
    assert again.ranking.reason is not Reason.KEEPER
    assert router.kept_answers.get(name_key("resp_1")) is None
    router.set_endpoints(everyone)
    back = route(router, a_response(b"and?", continues="resp_1"), at_s=500.0)
    assert back.ranking.reason is not Reason.KEEPER


@pytest.mark.parametrize("how", ["ejected", "down"])
def test_what_an_endpoint_kept_is_there_again_with_it(how):
    """A slow answer to a probe is no restart, and nobody else has it."""
    router = a_router(3)
    first = answered(router, a_response(a_prompt(4000)), "resp_1")
    if how == "ejected":
        router.fleet.health.failed(first.address, 1.0)
    else:
        for _ in range(5):
            router.fleet.health.probed(first.address, healthy=False)
    again = route(router, a_response(b"and?", continues="resp_1"), at_s=1.0)
    assert again.address != first.address
    assert again.ranking.reason is not Reason.KEEPER
    assert router.look_up("resp_1", 1.0).addresses == (first.address,)
    router.fleet.health.probed(first.address, healthy=True)
    back = route(router, a_response(b"and?", continues="resp_1"), at_s=500.0)
    assert (back.address, back.ranking.reason) == (first.address, Reason.KEEPER)


def test_a_keeper_that_is_no_candidate_is_passed_over_and_remembered():
    router = a_router(3)
    first = answered(router, a_response(a_prompt(400)), "resp_1")
    elsewhere = Subset.of([a for a in first.addresses if a != first.address])
    request = a_response(b"and?", continues="resp_1")
    assert route(router, request, subset=elsewhere).address != first.address
    assert route(router, request).address == first.address


def test_who_failed_a_turn_is_asked_again_for_it():
    """No other has the conversation."""
    router = a_router(3)
    first = answered(router, a_response(a_prompt(400)), "resp_1")
    request = a_response(b"and?" * 50, continues="resp_1")
    failed = route(router, request)
    end(router, failed, outcome=Outcome.FAILED, response_code=500)
    assert route(router, request, at_s=2.0).address == first.address


def test_a_retry_moves_what_is_kept():
    router = a_router(3)
    decision = route(router, a_response(a_prompt(400)))
    other = decision.addresses[1]
    tell(router, decision, "resp_1", served=other)
    end(router, decision, served=other, attempts=2)
    assert router.look_up("resp_1", 2.0).addresses == (other,)


def test_what_is_not_to_be_kept_is_not_remembered():
    router = a_router(3)
    for keeping in (None, Keeping(), Keeping(continues=5)):
        decision = route(router, a_request(keeping=keeping))
        tell(router, decision, "resp_1")
        end(router, decision)
        assert router.kept_answers.get(name_key("resp_1")) is None


def test_while_an_answer_that_is_kept_is_on_its_way_an_unknown_id_may_be_its():
    router = a_router(3)
    assert not router.awaited.is_owed("resp_1")
    chat = route(router, a_request())
    assert not router.awaited.is_owed("resp_1")
    decision = route(router, a_response(a_prompt(100)))
    assert router.awaited.is_owed("resp_1")
    tell(router, decision, "resp_1", KeptState.RUNNING)
    assert not router.awaited.is_owed("resp_1")
    assert not router.awaited.is_owed("resp_2")
    end(router, chat)


# -- who is asked for what nobody is known to keep ------------------------------------------------


def first_asked(router, name="resp_1", at_s=0.0, **kw) -> str:
    return router.look_up(name, at_s, **kw).addresses[0]


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_each_endpoint_is_asked_once_before_any_is_asked_again(n):
    router = a_router(n)
    for name in ("resp_1", "resp_2", "resp_3"):
        for _ in range(2):
            assert len({first_asked(router, name) for _ in range(n)}) == n


def test_names_begin_at_different_endpoints():
    router = a_router(4)
    first = [first_asked(router, f"resp_{i}") for i in range(400)]
    assert min(first.count(address) for address in set(first)) > 60


def test_those_that_are_down_or_not_allowed_are_not_asked():
    router = a_router(4)
    one, two, three, four = [e.address for e in router.fleet.endpoints]
    for _ in range(5):
        router.fleet.health.probed(one, healthy=False)
    router.fleet.health.failed(two, 1.0)
    assert {first_asked(router, at_s=1.0) for _ in range(8)} == {three, four}
    allowed = Subset.of([one, four])
    assert router.look_up("resp_1", 1.0, allowed).addresses == (four,)
    assert router.look_up("resp_1", 1.0, Subset.of([one])).addresses == ()


def test_who_was_found_is_asked_from_then_on():
    router = a_router(3)
    lookup = [router.look_up("resp_1", 1.0) for _ in range(2)][1]
    router.kept(KeptAnswer(lookup.lookup_id, 1.0, "resp_1", KeptState.ENDED, lookup.addresses[0]))
    assert {router.look_up("resp_1", 2.0).addresses for _ in range(5)} == {lookup.addresses[:1]}


def test_what_has_no_name_is_left_to_envoy():
    assert a_router(3).look_up("", 0.0).addresses == ()


def test_names_that_are_sought_are_bounded(monkeypatch):
    monkeypatch.setattr(look_ups, "MAX_SOUGHT", 10)
    router = a_router(3)
    for i in range(50):
        first_asked(router, f"resp_{i}")
    assert len(router.kept_answers._search._n_asked) == 10


# -- in the background -------------------------------------------------------------------------


def a_background_response(router, **changes):
    request = a_response(a_prompt(4000), in_background=True, streaming=False, **changes)
    decision = route(router, request)
    tell(router, decision, "resp_1", KeptState.RUNNING)
    end(router, decision, at_s=0.2, form=AnswerForm.PROMISE)
    return decision


def heard(router, state, at_s, name="resp_1"):
    lookup = router.look_up(name, at_s)
    router.kept(KeptAnswer(lookup.lookup_id, at_s, name, state, None))


def test_a_background_response_is_load_until_it_is_heard_to_have_ended():
    router = a_router(3)
    a_background_response(router)
    assert in_flight(router) == 1
    heard(router, KeptState.RUNNING, 5.0)
    assert in_flight(router) == 1
    heard(router, KeptState.ENDED, 6.0)
    heard(router, KeptState.ENDED, 7.0)
    assert in_flight(router) == 0


def test_it_is_load_no_longer_than_a_request_may_be_silent():
    router = a_router(3, request_timeout_s=60.0)
    a_background_response(router)
    heard(router, KeptState.RUNNING, 50.0)
    router.expire(100.0)
    assert in_flight(router) == 1
    router.expire(111.0)
    assert in_flight(router) == 0
    assert router.look_up("resp_1", 112.0).addresses  # it can still be fetched


@pytest.mark.parametrize("how", ["left", "gone", "deleted", "evicted"])
def test_its_load_goes_with_it(how, monkeypatch):
    router = a_router(3)
    decision = a_background_response(router)
    if how == "left":
        router.set_endpoints(e for e in router.fleet.endpoints if e.address != decision.address)
        router.look_up("resp_1", 1.0)
    elif how == "gone":
        lookup = router.look_up("resp_1", 1.0)
        router.kept(KeptAnswer(lookup.lookup_id, 1.0, "", KeptState.GONE, decision.address))
    elif how == "deleted":
        heard(router, KeptState.GONE, 1.0)
    else:
        monkeypatch.setattr(kept, "MAX_KEPT", 3)
        for i in range(4):
            answered(router, a_response(a_prompt(50, seed=i)), f"other_{i}")
    assert in_flight(router) == 0
    assert router.kept_answers.n_in_background == 0


def test_a_stream_that_ends_whole_leaves_no_load_and_one_that_is_left_does():
    router = a_router(3)
    for outcome, expected in ((Outcome.SERVED, 0), (Outcome.CLIENT_GONE, 1)):
        decision = route(router, a_response(a_prompt(400), in_background=True))
        tell(router, decision, f"resp_{outcome}", KeptState.RUNNING)
        end(router, decision, outcome=outcome)
        assert in_flight(router) == expected


def test_work_in_the_background_keeps_nobody_on_probation_for_ever():
    router = a_router(2)
    decision = a_background_response(router)
    router.fleet.health.failed(decision.address, 1.0)
    chosen = {
        route(router, a_request(a_prompt(40, seed=i)), at_s=30.0 + i).address for i in range(2)
    }
    assert decision.address in chosen


# -- conversations and what was made ------------------------------------------------------------


def test_a_conversation_grows_where_it_is():
    router = a_router(3)
    said = {"is_conversation": True, "continues": "conv_1"}
    first = route(router, a_response(a_prompt(2000), **said))
    tell(router, first, "resp_1", tokens=100)
    end(router, first, output_tokens=100)
    tokens = 2100.0
    for turn in range(5):
        decision = route(router, a_response(a_prompt(160, seed=turn), **said), at_s=2.0 + turn)
        assert decision.address == first.address
        assert decision.candidates.request.prompt_tokens == tokens + 160
        end(router, decision, at_s=2.5 + turn, output_tokens=40)
        tokens += 200


def test_a_404_from_another_does_not_make_it_forgotten():
    router = a_router(3)
    first = answered(router, a_response(a_prompt(400)), "resp_1")
    lookup = router.look_up("resp_1", 1.0)
    other = next(a for a in first.addresses if a != first.address)
    router.kept(KeptAnswer(lookup.lookup_id, 1.0, "", KeptState.GONE, other))
    assert router.look_up("resp_1", 1.0).addresses == (first.address,)


# -- bounds -------------------------------------------------------------------------------------


def test_the_least_recently_used_are_forgotten_first(monkeypatch):
    monkeypatch.setattr(kept, "MAX_KEPT", 3)
    router = a_router(3)
    for i in range(3):
        answered(router, a_response(a_prompt(50, seed=i)), f"resp_{i}", at_s=float(i))
    router.look_up("resp_0", 3.0)
    answered(router, a_response(a_prompt(50, seed=9)), "resp_9", at_s=4.0)
    known = [
        name
        for name in ("resp_0", "resp_1", "resp_2", "resp_9")
        if router.kept_answers.get(name_key(name))
    ]
    assert known == ["resp_0", "resp_2", "resp_9"]


def test_prompts_are_bounded_together(monkeypatch):
    monkeypatch.setattr(kept, "MAX_BLOCKS", 1000)
    router = a_router(3)
    for i in range(20):
        answered(router, a_response(a_prompt(4000, seed=i)), f"resp_{i}", at_s=float(i))
    assert router.kept_answers._memory.n_blocks <= 1000
    assert router.kept_answers.get(name_key("resp_19"))


def test_what_nobody_used_for_a_day_is_forgotten():
    router = a_router(3)
    answered(router, a_response(a_prompt(50)), "resp_1")
    router.expire(KEPT_FOR_S - 10.0)
    assert len(router.look_up("resp_1", 10.0).addresses) == 1
    router.expire(KEPT_FOR_S + 20.0)
    assert router.kept_answers.get(name_key("resp_1")) is None
    assert router.kept_answers._memory.n_blocks == 0


@pytest.mark.parametrize("told", ["pool.kept-zz", "pool.kept-", "kept-", "pool.1", ""])
def test_odd_ids_are_nothing(told):
    router = a_router(1)
    kept = KeptAnswers(router.fleet)
    kept.heard(KeptAnswer(told, 0.0, "", KeptState.GONE), None)
    kept.heard(KeptAnswer(told, 0.0, "resp_1", KeptState.ENDED), None)
    assert kept.n_in_background == 0
