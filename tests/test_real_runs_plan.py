"""What is measured on real engines, and what is expected of it before."""

import csv
import gzip
import json
import sys
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
for folder in (BENCHMARKS, BENCHMARKS / "gpu", BENCHMARKS / "vllm"):
    sys.path.insert(0, str(folder))

from cells import MIXES, Cell  # noqa: E402
from contenders import VARIANTS, in_virtual_time, settings_of  # noqa: E402
from gather import PREDICTION, gather  # noqa: E402
from gpu_engines import FLEETS, inner_port  # noqa: E402
from parts import PARTS, PLAN  # noqa: E402
from predict_runs import predict, read_engines  # noqa: E402
from prediction_errors import in_words  # noqa: E402
from prediction_errors import read as read_predictions  # noqa: E402
from round_tables import ratios_table, read_rounds, rounds_table  # noqa: E402
from rounds import REQUEST_FIELDS, cached_ratio  # noqa: E402
from session_text import LETTERS_PER_TOKEN, Answered, prompt_text  # noqa: E402
from trace_text import TRACE_FILES, replayed  # noqa: E402

from lodestar_extproc.config.settings import PoolSettings  # noqa: E402
from lodestar_extproc.evaluation.chats import ChatKind  # noqa: E402
from lodestar_extproc.evaluation.load import LoadRecord  # noqa: E402

DECIDED = ((5.0, 0.1, 0.9), (20.0, 0.1, 0.15), (30.0, 0.2, 0.3), (40.0, "", 0.3), (41.0, 0.2, ""))
"""When, TTFT as predicted and as measured: too early, two that count, and two that lack one."""
ENGINES = read_engines(BENCHMARKS / "gpu" / "results" / "first" / "fitted.json")


@pytest.fixture
def traces(tmp_path):
    """A folder with a trace of ten requests, each with the beginning of the one before it."""
    path = tmp_path / TRACE_FILES["conversation"]
    path.parent.mkdir()
    lines = [
        {"input_length": 512 * n, "output_length": 2 * n, "hash_ids": list(range(n))}
        for n in range(1, 11)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return tmp_path


def test_every_policy_and_repeat_of_a_round_gets_the_same_arrivals(traces):
    for workload in (*MIXES, *TRACE_FILES):
        first = Cell("any", workload, 20.0, "learned", 1, 3.0)
        again = Cell("any", workload, 20.0, "lmetric", 1, 3.0, repeat=1)
        other = Cell("any", workload, 20.0, "learned", 2, 3.0)
        made = [cell.arrivals(on_cpu=False, traces=traces) for cell in (first, again, other)]

        assert made[0] == made[1] != made[2]
        assert all(0.0 <= a.at_s <= 3.0 for a in made[0])


def test_prompts_of_a_trace_share_as_much_text_as_they_share_hash_ids(traces):
    path = traces / TRACE_FILES["conversation"]
    arrivals = list(replayed(path, 10.0, 3, 20.0))
    by_length = {len(a.messages[0][1]): a.messages[0][1] for a in arrivals}
    shorter, longer = (by_length[n] for n in sorted(by_length)[-2:])

    assert longer.startswith(shorter)
    # 50 tokens a hash id, of 1.82 letters each.
    assert len(longer) - len(shorter) == pytest.approx(91, abs=1)
    assert {a.output_tokens for a in arrivals} <= set(range(2, 11))


def test_a_trace_that_is_not_there_says_where_to_get_it(tmp_path):
    cell = Cell("any", "conversation", 20.0, "learned", 1, 3.0)

    with pytest.raises(FileNotFoundError, match=r"--traces.*https://"):
        cell.arrivals(on_cpu=False, traces=tmp_path)


def test_every_part_has_cells_and_the_plan_names_parts_there_are():
    for part in PARTS.values():
        cells = list(part.cells("unequal", 56.7, 0.75, 40.0))
        assert len(cells) == len(part.policies) * len(part.rounds)
    assert set(PLAN) <= set(PARTS)
    assert len({c for p in PARTS.values() for c in p.cells("u", 56.7, 0.75, 40.0)}) > 50


def test_what_a_run_will_bring_can_be_said_before_it():
    cell = Cell("any", "mixed", 10.0, "learned", 1, 13.0)
    said = predict(cell, ENGINES, Path("nowhere"))

    assert said == predict(cell, ENGINES, Path("nowhere"))
    assert 0.01 < said.ttft_mean_s < said.ttft_p99_s < said.e2e_mean_s * 3


AGENTS = Cell("any", "agent_sessions", 10.0, "learned", 1, 20.0)


def test_sessions_are_the_same_for_every_policy_and_say_more_turn_by_turn():
    first = AGENTS.load(on_cpu=False)
    again = Cell(**(asdict(AGENTS) | {"policy": "lmetric"})).load(on_cpu=False)
    started = list(first)

    assert started == list(again)
    assert all(0.0 <= each.at_s <= 20.0 for each in started)
    followed = 0
    for before, also in zip(started, again, strict=True):
        turns = first.next_turns(before, before.at_s + 1.0)
        assert turns == again.next_turns(also, before.at_s + 1.0)
        for turn in turns:
            assert turn.at_s > before.at_s + 1.0
            said, says = before.messages[0][1], turn.messages[0][1]
            # A context that was summed up begins anew.
            if turn.session == before.session and len(says) > len(said):
                followed += 1
                shared = int(len(said) - 16 * LETTERS_PER_TOKEN)
                assert says[:shared] == said[:shared]
    assert followed > 10


def test_no_turn_is_asked_after_the_end_of_a_run():
    load = AGENTS.load(on_cpu=False)
    started = list(load)

    assert not any(load.next_turns(each, 20.1) for each in started)


def test_prompts_share_the_words_of_the_blocks_they_share():
    ours, other = prompt_text([5, 6, 7], 50), prompt_text([5, 6, 8], 50)
    block = 16 * LETTERS_PER_TOKEN

    assert len(ours) == len(other) == round(50 * LETTERS_PER_TOKEN)
    assert ours[: int(2 * block)] == other[: int(2 * block)]
    assert ours[int(2 * block) :] != other[int(2 * block) :]
    # Where a prompt ends within a block, nothing is said of the next one.
    assert prompt_text([5, 6, 7], 33)[: int(2 * block)] == ours[: int(2 * block)]


def test_variants_set_what_the_service_knows_and_simulations_name_them_alike():
    for name in VARIANTS:
        settings = settings_of(name)
        assert PoolSettings(**settings).policy == settings["policy"]
        assert in_virtual_time(name).startswith(f"{settings['policy']}:")
    assert settings_of("lmetric") == {"policy": "lmetric"}


def test_no_two_instances_of_a_machine_use_the_same_inner_ports():
    first = [
        inner_port(name, gpu, n)
        for name, fleet in FLEETS.items()
        for gpu in "0123"
        for n in range(len(fleet.instances("0123")))
    ]
    assert len(set(first)) == len(first)
    assert all(b - a >= 20 for a, b in zip(sorted(first), sorted(first)[1:], strict=False))


def test_a_fleet_of_unlike_cards_begins_again_with_the_first():
    equal, mixed = FLEETS["equal"], FLEETS["whole_mixed"]

    assert equal.instances("01") == [(("0",), 25)] * 4 + [(("1",), 25)] * 4
    assert mixed.instances("012") == [(("0",), 100), (("1",), 100), (("2",), 50)]
    assert mixed.instances("01234")[-1] == (("4",), 100)


def test_an_instance_may_span_all_cards():
    assert FLEETS["pair_tensor"].instances("01") == [
        (("0", "1"), 50),
        (("0",), 50),
        (("1",), 50),
    ]


def test_hits_are_what_answers_say_was_cached():
    def record(prompt, cached):
        return LoadRecord(0.0, ChatKind.AGENT, 200, 0.1, 0.2, 2, "", "", 1, 0, prompt, cached)

    assert cached_ratio([record(100, 80), record(300, 0), record(1000, None)]) == 0.2
    assert cached_ratio([record(None, None)]) is None


@pytest.fixture
def results(tmp_path):
    """Two rounds on two cards, and of a third only one policy; sessions take two turns each."""
    folders = []
    for number in (1, 2, 3):
        folder = tmp_path / f"card{number}" / "results"
        folder.mkdir(parents=True)
        rows, cells = [], []
        for policy, ttft_s in (("learned", 0.1), ("lmetric", 0.2), ("cache_aware", 0.4)):
            if number == 3 and policy != "learned":
                continue
            cell = asdict(Cell("any", "agent_sessions", 10.0, policy, number, 60.0))
            cells.append(cell)
            for turn in range(2 + (policy == "learned")):
                answer = {
                    "at_s": 20.0 + 2 * turn,
                    "kind": "agent",
                    "ttft_s": number * ttft_s,
                    "e2e_s": 1.0 + ttft_s,
                    "output_chunks": 9,
                    "engine": "e",
                    "failure": "",
                    "session": 4,
                    "turn": turn,
                    "prompt_tokens": 100,
                    "cached_tokens": 50,
                }
                rows.append(cell | {name: answer.get(name, "") for name in REQUEST_FIELDS})
        (folder / "summary.json").write_text(json.dumps({"about": {}, "cells": cells}))
        with gzip.open(folder / "requests.csv.gz", "wt", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        with gzip.open(folder / "decisions.csv.gz", "wt", newline="") as file:
            writer = csv.DictWriter(file, PREDICTION, restval="")
            writer.writeheader()
            for age_s, predicted_s, ttft_s in DECIDED:
                times = {"age_s": age_s, "predicted_ttft_s": predicted_s, "ttft_s": ttft_s}
                tokens = {"prompt_tokens": 900.0, "matched_tokens": 100.0, "rate_per_s": 10.0}
                writer.writerow(times | tokens)
        folders.append(folder)
    gather(folders, tmp_path)
    return tmp_path


def test_rounds_are_read_back_as_they_were_measured(results):
    rounds = read_rounds(results)
    first = rounds["any", "agent_sessions", 10.0, 60.0, 1]["learned"]

    assert [key[4] for key in rounds] == [1, 2]
    assert (first.mean_s, first.requests, first.hits) == (pytest.approx(0.1), 3, 0.5)
    # The third turn, which nobody else has ended, does not count.
    assert first.completion_s == pytest.approx(2.0 + 1.1)
    assert "| 100 200 |" in "".join(rounds_table(rounds))


def test_what_was_predicted_is_held_against_what_was_measured(results):
    (((_, _, rate_per_s, part), error),) = read_predictions(results).items()

    assert (rate_per_s, in_words(part), error.requests) == (10.0, "300 to 1500", 6)
    assert (error.predicted_s, error.measured_s) == (pytest.approx(0.15), pytest.approx(0.225))
    assert error.median_ratio == pytest.approx(1.5)


def test_a_subject_is_held_against_the_best_rule_of_a_load(results):
    *_, row = ratios_table(read_rounds(results), "learned")

    assert row.startswith("| any, agent_sessions, 10 | lmetric | 0.50 0.50 | 0.50 |")
    assert row.endswith("| 2 of 2 |")


def test_an_answer_takes_its_place_in_a_virtual_cache_and_is_never_asked_for():
    asked = Cell("made", "agent_sessions", 4.0, "learned", 1, 3.0).sessions()
    answered = Answered(asked)
    seen, blocks = set(), 0
    for before, after in zip(asked, answered, strict=True):
        following = asked.next_turns(before, before.at_s + 1.0)
        assert [e.turn for e in answered.next_turns(after, after.at_s + 1.0)] == [
            e.turn for e in following
        ]
        n_prompt = before.prompt_tokens // 16
        n_both = (before.prompt_tokens + before.output_tokens) // 16
        assert list(after.block_ids[:n_prompt]) == list(before.block_ids[:n_prompt])
        assert len(after.block_ids) == n_both
        seen |= set(after.block_ids[n_prompt:])
        blocks += n_both - n_prompt
    assert len(seen) == blocks > 0
