"""Sentences that a tired operator understands, from what `/explain` and journals hold."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from lodestar_extproc.admin.explanation import TERMS, explanation
from lodestar_extproc.admin.journal_answer import NotInJournals, journal_answer
from lodestar_extproc.decision import Reason
from recorded_journal import Recording


def a_candidate(endpoint: str, ttft_s: float, **costs_s: float):
    costs_s = {"own_ttft": ttft_s, "delay_to_others": 0.0, "memory": 0.0} | costs_s
    return {
        "endpoint": endpoint,
        "predicted_ttft_s": ttft_s,
        "costs_s": costs_s,
        "cost_s": sum(costs_s.values()),
        "ttft_low_s": 0.5 * ttft_s,
        "ttft_high_s": 2.0 * ttft_s,
    }


def an_answer(*candidates, reason=Reason.MODEL, **changes):
    return {
        "policy": "learned",
        "reason": reason,
        "chosen": candidates[0]["endpoint"],
        "matched_tokens": 480.0,
        "prompt_tokens": 512.0,
        "candidates": list(candidates),
        "predicted_ttft_s": candidates[0]["predicted_ttft_s"],
        "predicted_by": "engine",
        "used": True,
        "ttft_s": None,
        "served": None,
        "outcome": None,
        "fallback": None,
    } | changes


def test_a_slower_endpoint_is_explained_by_what_the_faster_one_would_cost_others():
    said = explanation(
        an_answer(
            a_candidate("b:80", 0.30),
            a_candidate("a:80", 0.25, delay_to_others=0.40, memory=0.01),
        )
    )

    assert "a:80 was expected to be 0.050 s sooner, but all in all that costs 0.360 s more" in said
    assert "requests that come after it would wait longer (+0.400 s)" in said
    assert "memory" not in said


def test_the_soonest_is_said_to_be_it():
    said = explanation(an_answer(a_candidate("a:80", 0.2), a_candidate("b:80", 0.3)))

    assert "It was expected to give the first token soonest." in said
    assert "Predicted TTFT 0.200 s, with 80 % between 0.100 and 0.400" in said


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("a:80", "b:80", "The predictor would have chosen it, too."),
        ("b:80", "a:80", "The predictor would have chosen a:80."),
    ],
)
def test_where_the_fallback_decided_it_says_what_the_predictor_would_have_done(first, second, said):
    ttft_s = {"a:80": 0.2, "b:80": 0.3}
    candidates = [a_candidate(name, ttft_s[name]) for name in (first, second)]
    text = explanation(an_answer(*candidates, reason=Reason.UNTRUSTED))

    assert said in text
    assert "the predictor's live error was too high" in text


def test_what_the_fallback_would_have_done_is_said_of_a_choice_by_the_model():
    fallback = {"policy": "least_request", "endpoint": "b:80"}
    said = explanation(
        an_answer(a_candidate("a:80", 0.2), a_candidate("b:80", 0.3), fallback=fallback)
    )

    assert "The fallback, least_request, would have chosen b:80." in said


def test_every_part_of_every_cost_has_words():
    assert TERMS.keys() >= {"own_ttft", "delay_to_others", "slower_tokens", "lost_cache", "memory",
                            "failures", "generation", "late"}  # fmt: skip


# -- from a journal --


async def a_journal(tmp_path, **settings):
    recording = Recording(tmp_path / "j", burn_in_samples=1, **settings)
    await asyncio.to_thread(recording.serve, 40)
    path = await asyncio.to_thread(recording.write)
    return recording, path


async def test_a_decision_of_the_journal_is_explained_in_the_same_words(tmp_path):
    recording, path = await a_journal(tmp_path)
    decision = recording.listener.decisions[-1]

    answer = journal_answer([path], decision.decision_id, time.time())
    assert answer["chosen"] == decision.address
    assert [c["endpoint"] for c in answer["candidates"]] == list(decision.addresses)
    assert f"Policy learned chose {decision.address} of" in answer["explanation"]
    first = answer["candidates"][0]
    account = decision.ranking.account
    assert first["cost_s"] == pytest.approx(account.cost_s[decision.chosen], rel=1e-5)
    assert sum(first["costs_s"].values()) == pytest.approx(first["cost_s"], rel=1e-4)
    assert first["features"]["constant"] == 1.0


async def test_a_line_of_before_has_no_costs_and_is_explained_without(tmp_path):
    _, path = await a_journal(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    old = orjson.loads(lines[-1])
    for name in ("costs", "fallback", "predicted_by"):
        del old[name]
    path.write_bytes(lines[0] + orjson.dumps(old) + b"\n")

    answer = journal_answer([path], old["decision_id"], time.time())
    assert "chose" in answer["explanation"]
    assert "costs_s" not in answer["candidates"][0]


async def test_an_id_that_is_not_there_and_a_file_that_is_no_journal_are_told_apart(tmp_path):
    _, path = await a_journal(tmp_path)
    other = tmp_path / "other"
    other.write_text("hello\n")

    with pytest.raises(NotInJournals):
        journal_answer([path], "nobody", 0.0)
    with pytest.raises(ValueError, match="is no journal"):
        journal_answer([other], "nobody", 0.0)
