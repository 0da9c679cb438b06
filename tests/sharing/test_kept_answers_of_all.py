"""What one replica hears of answers that engines keep, all know: where it is, and its prompt."""

from __future__ import annotations

import math

import pytest

from builders import a_prompt
from lodestar_extproc.completion import AnswerForm, KeptAnswer, KeptState
from lodestar_extproc.decision import Reason
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import KeptColumns
from lodestar_extproc.request import Keeping, RequestKind, name_key
from lodestar_extproc.routing.kept import Kept, KeptMemory
from lodestar_extproc.sharing import kept_news
from lodestar_extproc.sharing.kept_columns import read_kept, write_all, write_kept
from sharing_routers import SharingRouter, exchange

FRAME_S = 0.03


def replicas(n: int = 2, first: int = 1) -> list[SharingRouter]:
    made = [SharingRouter(first + i, policy="round_robin") for i in range(n)]
    exchange(made, 0.0)
    exchange(made, FRAME_S)
    return made


def send(replica, prompt=b"and?" * 40, *, continues=None, at_s=1.0, **keeping):
    own = Keeping(keeps_answer=True, continues=name_key(continues) if continues else None)
    return replica.send(prompt, at_s, kind=RequestKind.RESPONSES, keeping=own._replace(**keeping))


def tell(replica, decision, name, at_s, state=KeptState.ENDED, tokens=None):
    told = KeptAnswer(decision.decision_id, at_s, name, state, decision.address, tokens)
    replica.router.kept(told)


def answered(replica, name, prompt=b"x" * 4000, *, at_s=1.0, tokens=100, **keeping):
    decision = send(replica, prompt, at_s=at_s, **keeping)
    tell(replica, decision, name, at_s + 0.1, KeptState.RUNNING)
    tell(replica, decision, name, at_s + 0.2, tokens=tokens)
    replica.end(decision, at_s + 0.3, response_code=200, output_tokens=tokens)
    return decision


def test_a_turn_goes_on_at_its_keeper_from_any_replica_with_all_of_its_prompt():
    a, b, c = replicas(3)
    decision = answered(a, "resp_1", a_prompt(2000, 5))
    exchange([a, b, c], 1.4)
    at_s = 2.0
    for number, replica in enumerate((b, c, a, b), 1):
        turn = send(replica, a_prompt(160, 9 + number), continues=f"resp_{number}", at_s=at_s)
        assert (turn.address, turn.ranking.reason) == (decision.address, Reason.KEEPER)
        request = turn.candidates.request
        assert request.prompt_tokens == 2000 + number * (100 + 160)
        # The words of replies are no matter of the cache's; what stands before the first is.
        assert turn.candidates.matched_tokens[turn.chosen] >= 2000
        tell(replica, turn, f"resp_{number + 1}", at_s + 0.1, tokens=100)
        replica.end(turn, at_s + 0.2, response_code=200, output_tokens=100)
        exchange([a, b, c], at_s + 0.3)
        at_s += 1.0
    # One chain of hashes each, whoever answered.
    assert {each.router.kept_answers._memory.n_blocks for each in (a, b, c)} == {
        len(request.block_hashes)
    }


@pytest.mark.parametrize("frames_between", [True, False])
def test_it_is_known_as_soon_as_its_id_whether_frames_part_its_words_or_not(frames_between):
    a, b = replicas()
    decision = send(a, a_prompt(2000, 5))
    if frames_between:
        exchange([a, b], 1.02)
    tell(a, decision, "resp_1", 1.03, KeptState.RUNNING)
    exchange([a, b], 1.05)
    kept = b.router.kept_answers.get(name_key("resp_1"))
    assert (kept.address, kept.n_blocks, kept.state) == (
        decision.address,
        len(decision.candidates.request.block_hashes),
        KeptState.RUNNING,
    )
    tell(a, decision, "resp_1", 1.3, tokens=70)
    if frames_between:
        exchange([a, b], 1.32)
    a.end(decision, 1.33, response_code=200, output_tokens=70)
    exchange([a, b], 1.35)
    kept = b.router.kept_answers.get(name_key("resp_1"))
    assert (kept.reply_tokens, kept.n_blocks, kept.state) == (
        70,
        len(decision.candidates.request.block_hashes),
        KeptState.ENDED,
    )


def test_a_look_up_of_any_goes_where_it_is_and_what_one_finds_all_know():
    a, b, c = replicas(3)
    decision = answered(a, "resp_1")
    exchange([a, b, c], 1.4)
    assert b.router.look_up("resp_1", 2.0).addresses == (decision.address,)
    # Made before any of them began: b's look-up tells who has it.
    lookup = b.router.look_up("resp_0", 2.0)
    b.router.kept(KeptAnswer(lookup.lookup_id, 2.1, "resp_0", KeptState.ENDED, "10.0.0.3:8000"))
    exchange([a, b, c], 2.2)
    assert {each.router.look_up("resp_0", 2.3).addresses for each in (a, b, c)} == {
        ("10.0.0.3:8000",)
    }


def test_what_is_gone_is_gone_for_all_unless_another_says_so():
    a, b = replicas()
    decision = answered(a, "resp_1")
    exchange([a, b], 1.4)
    lookup_id = b.router.look_up("resp_1", 2.0).lookup_id
    other = next(x for x in decision.addresses if x != decision.address)
    b.router.kept(KeptAnswer(lookup_id, 2.1, "", KeptState.GONE, other))
    exchange([a, b], 2.2)
    assert a.router.kept_answers.get(name_key("resp_1")) is not None
    b.router.kept(KeptAnswer(lookup_id, 2.3, "", KeptState.GONE, decision.address))
    exchange([a, b], 2.4)
    assert a.router.kept_answers.get(name_key("resp_1")) is None


def test_an_answer_in_the_background_is_load_until_any_replica_hears_of_its_end():
    a, b = replicas()
    decision = send(a, in_background=True)
    tell(a, decision, "resp_1", 1.1, KeptState.RUNNING)
    a.end(decision, 1.2, response_code=200, form=AnswerForm.PROMISE)
    exchange([a, b], 1.3)
    assert sum(a.in_flight(1.4)) == sum(b.in_flight(1.4)) == 1
    assert b.router.fleet.everything(1.4).decode_requests.sum() == 1
    lookup_id = b.router.look_up("resp_1", 1.5).lookup_id
    told = KeptAnswer(lookup_id, 1.5, "resp_1", KeptState.RUNNING, decision.address)
    b.router.kept(told)  # it was asked for, and is not ready
    exchange([a, b], 1.6)
    assert sum(a.in_flight(1.7)) == sum(b.in_flight(1.7)) == 1
    b.router.kept(told._replace(at_s=2.1, state=KeptState.ENDED))
    exchange([a, b], 2.2)
    exchange([a, b], 2.23)
    assert sum(a.in_flight(2.3)) == sum(b.in_flight(2.3)) == 0


def test_a_conversation_grows_for_all():
    a, b = replicas()
    tokens, at_s = 0.0, 1.0
    for number, replica in enumerate((a, b, b, a, b)):
        turn = send(
            replica, a_prompt(400, number), continues="conv_1", is_conversation=True, at_s=at_s
        )
        assert turn.candidates.request.prompt_tokens == tokens + 400
        replica.end(turn, at_s + 0.2, response_code=200, output_tokens=50)
        exchange([a, b], at_s + 0.3)
        tokens, at_s = tokens + 450, at_s + 1.0


def test_what_a_lost_frame_told_is_told_again():
    a, b = replicas()
    decision = send(a, a_prompt(2000, 5))
    tell(a, decision, "resp_1", 1.1, tokens=10)
    a.end(decision, 1.2, response_code=200)
    exchange([a, b], 1.3, lost=lambda: True)
    for step in range(1, 12):
        exchange([a, b], 1.3 + step * FRAME_S)
    kept = b.router.kept_answers.get(name_key("resp_1"))
    assert (kept.address, kept.n_blocks) == (
        decision.address,
        len(decision.candidates.request.block_hashes),
    )


def test_a_replica_that_begins_gets_all_that_is_known():
    a, b = replicas()
    for number in range(20):
        answered(a if number % 2 else b, f"resp_{number}", a_prompt(500, number), at_s=1.0 + number)
        exchange([a, b], 1.5 + number)
    new = SharingRouter(9, policy="round_robin")
    for step in range(4):
        exchange([a, b, new], 30.0 + step * FRAME_S)
    for number in range(20):
        turn = send(new, continues=f"resp_{number}", at_s=31.0 + number)
        assert turn.ranking.reason is Reason.KEEPER
        assert turn.candidates.request.prompt_tokens == 500 + 100 + 40
        assert turn.candidates.matched_tokens[turn.chosen] == 496  # its whole blocks
        new.end(turn, 31.5 + number, response_code=200)
    known = [key for key, _ in new.router.kept_answers.recent(20)]
    assert known[0] == name_key("resp_19")  # in the order of their use


def test_what_nobody_takes_for_an_hour_costs_no_memory(monkeypatch):
    monkeypatch.setattr(kept_news, "MAX_EVENTS", 50)
    (alone,) = replicas(1)
    for number in range(300):
        answered(alone, f"resp_{number}", at_s=1.0 + number)
        lookup_id = alone.router.look_up(f"resp_{number}", 1.5 + number).lookup_id
        if number % 2:
            gone = KeptAnswer(lookup_id, 1.6 + number, "", KeptState.GONE)
            alone.router.kept(gone)
    news = alone.shared._kept
    assert 40 < len(news._changed) <= 50
    assert 40 < len(news._gone) <= 50


# -- columns --------------------------------------------------------------------------------------


def columns_of(n: int = 3, prompt_blocks: int = 4, **changes) -> KeptColumns:
    memory, columns = KeptMemory(), KeptColumns()
    decision = send(SharingRouter(1), b"x" * 64 * prompt_blocks)
    for key in range(1, n + 1):
        kept = Kept("10.0.0.1:8000", 0.0, reply_tokens=5.0)
        memory.add(key, kept, decision.candidates.request._replace(keeping=None))
    write_all(columns, memory.recent(n))
    for name, value in changes.items():
        getattr(columns, name)[:] = value
    return columns


def read(columns: KeptColumns) -> list:
    return list(read_kept(columns, 7.0, lambda _key: None))


def test_they_are_read_as_they_were_written():
    told = read(columns_of())
    assert [each.key for each in told] == [3, 2, 1]
    assert {each.kept.address for each in told} == {"10.0.0.1:8000"}
    assert {(each.kept.prompt.prompt_bytes, each.kept.used_at_s) for each in told} == {(256, 7.0)}
    assert {len(each.kept.prompt.block_hashes) for each in told} == {4}


@pytest.mark.parametrize(
    "changes",
    [
        {"names": [1, 2]},
        {"names": [0, 0, 0]},
        {"at": [1, 7, 2**32 - 1]},
        {"reply_tokens": [math.nan, math.inf, -1.0]},
        {"prompt_tokens": [math.nan, math.inf, -1.0]},
        {"n_blocks": [4, 4, 5]},
        {"block_hashes": [1]},
        {"addresses": []},
    ],
)
def test_columns_that_do_not_fit_or_hold_what_cannot_be_tell_nothing(changes):
    assert read(columns_of(**changes)) == []


def test_of_prompts_beyond_the_bound_the_lengths_are_told():
    known = [(told.key, told.kept, "") for told in read(columns_of(4))]
    write_kept(columns := KeptColumns(), known, most_blocks=10)
    found = [each.kept.prompt for each in read(columns)]
    assert [len(prompt.block_hashes) for prompt in found] == [4, 4, 0, 0]
    assert {prompt.prompt_tokens for prompt in found} == {64.0}
