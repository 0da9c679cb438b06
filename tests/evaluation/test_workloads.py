import csv
import math
from itertools import islice

import numpy as np
import orjson
import pytest

from lodestar_extproc.evaluation.workloads.agentic import Agentic
from lodestar_extproc.evaluation.workloads.azure import read_azure
from lodestar_extproc.evaluation.workloads.blocks import FreshBlocks, of_hash_ids
from lodestar_extproc.evaluation.workloads.catalog import (
    GENERATED,
    TRACES,
    NoWorkload,
    find_workload,
)
from lodestar_extproc.evaluation.workloads.mooncake import read_mooncake
from lodestar_extproc.evaluation.workloads.prefixes import SharedPrefixes
from lodestar_extproc.evaluation.workloads.recorded import MIN_THINK_S, read_recorded
from lodestar_extproc.simulator.defaults import BLOCK_TOKENS


def json_lines(path, *entries):
    path.write_bytes(b"\n".join(orjson.dumps(e) for e in entries))
    return path


def mooncake_trace(folder, *rows):
    entries = [
        {"timestamp": 0, "input_length": n, "output_length": o, "hash_ids": h} for n, o, h in rows
    ]
    return json_lines(folder / "conversation_trace.jsonl", *entries)


def azure_trace(folder, n=200, seed=0):
    rng = np.random.default_rng(seed)
    path = folder / "AzureLLMInferenceTrace_code.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
        for i in range(n):
            stamp = f"2023-11-16 18:{17 + i // 60:02d}:{i % 60:02d}.9799600"
            writer.writerow([stamp, int(rng.integers(100, 4000)), int(rng.integers(1, 60))])
    return path


def shared_blocks(a, b):
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def infinite_hit_ratio(requests):
    seen, hit, total = set(), 0, 0
    for request in requests:
        blocks = request.block_ids[: request.prompt_tokens // BLOCK_TOKENS].tolist()
        known = next((i for i, b in enumerate(blocks) if b not in seen), len(blocks))
        hit += BLOCK_TOKENS * min(known, (request.prompt_tokens - 1) // BLOCK_TOKENS)
        total += request.prompt_tokens
        seen.update(blocks)
    return hit / total


def turns(dialogues):
    return [d.request(s, k, 0.0) for s, d in enumerate(dialogues) for k in range(len(d.turns))]


def test_a_prompt_shares_as_many_tokens_as_its_hash_ids_say():
    ids = np.array([7, 8, 9], dtype=np.uint64)
    other = np.array([7, 8, 1], dtype=np.uint64)

    assert shared_blocks(of_hash_ids(ids, 50, 150), of_hash_ids(other, 50, 150)) == 100 // 16
    assert len(of_hash_ids(ids, 50, 150)) == 150 // 16


def test_the_same_hash_id_at_another_place_is_other_content():
    one, two = (np.array(ids, dtype=np.uint64) for ids in ([7, 8], [8, 7]))

    assert not set(of_hash_ids(one, 64, 128)) & set(of_hash_ids(two, 64, 128))


def test_fresh_blocks_are_shared_with_nobody():
    fresh, other = FreshBlocks(1), FreshBlocks(2)
    ids = [*fresh.take(1000), *fresh.take(1000), *other.take(1000)]

    assert len(set(ids)) == len(ids) == 3 * (1000 // 16)


def test_mooncake_lengths_shrink_with_the_tokens_a_hash_id_stands_for(tmp_path):
    trace = mooncake_trace(tmp_path, (5120, 100, list(range(10))), (10, 3, [0]))
    by_length = {r.prompt_tokens: r for r in read_mooncake(trace, 50).generate(1.0, 0, 2).requests}

    assert sorted(by_length) == [16, 500]
    assert by_length[500].output_tokens == 50
    assert by_length[16].output_tokens == 2


def test_a_lap_of_a_trace_shares_nothing_with_the_one_before(tmp_path):
    trace = mooncake_trace(tmp_path, (5120, 10, list(range(10))))
    first, second = read_mooncake(trace, 512).generate(1.0, 0, 2).requests

    assert not set(first.block_ids) & set(second.block_ids)


@pytest.mark.parametrize("name", [*GENERATED, *TRACES])
def test_the_same_seed_gives_the_same_requests_another_seed_others(name, tmp_path):
    mooncake_trace(tmp_path, *[(100 * k, 40, [0, k]) for k in range(1, 40)])
    (tmp_path / "synthetic_trace.jsonl").write_bytes(
        (tmp_path / "conversation_trace.jsonl").read_bytes()
    )
    azure_trace(tmp_path)
    source = find_workload(name, traces=tmp_path)

    def drawn(seed):
        return [
            (r.at_s, r.prompt_tokens, r.block_ids.tolist())
            for r in islice(source.generate(5.0, seed, 30), 30)
        ]

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize("name", ["prefix30", "prefix50"])
def test_arrivals_come_at_the_rate_asked_for(name):
    requests = GENERATED[name].generate(20.0, 3, 2000).requests
    gaps_s = np.diff([r.at_s for r in requests])

    assert 1 / gaps_s.mean() == pytest.approx(20.0, rel=0.1)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(("share", "hit_ratio"), [(0.3, 0.26), (0.5, 0.43)])
def test_prefixes_are_shared_as_published(share, hit_ratio):
    requests = SharedPrefixes(share).generate(10.0, 5, 3000).requests

    assert infinite_hit_ratio(requests) == pytest.approx(hit_ratio, abs=0.02)
    assert np.mean([r.prompt_tokens for r in requests]) == pytest.approx(2600, rel=0.06)
    assert np.mean([r.output_tokens for r in requests]) == pytest.approx(100, rel=0.02)


def test_bursts_keep_their_shape_at_any_rate(tmp_path):
    trace = azure_trace(tmp_path, 200)
    slow, fast = (read_azure(trace).generate(rate, 1, 150).requests for rate in (1.0, 10.0))

    assert [r.at_s for r in slow] == pytest.approx([10 * r.at_s for r in fast])
    assert 150 / fast[-1].at_s == pytest.approx(10.0, rel=0.02)
    assert 0.05 < infinite_hit_ratio(fast) < 0.5


def test_agentic_dialogues_have_the_statistics_of_the_recorded_ones():
    dialogues = Agentic().generate(2.0, 5, 4000).dialogues
    requests = turns(dialogues)
    prompts, outputs = (
        [getattr(r, k) for r in requests] for k in ("prompt_tokens", "output_tokens")
    )
    thinks_s = [t.think_s for d in dialogues for t in d.turns]

    assert np.mean(prompts) == pytest.approx(9805, rel=0.08)
    assert np.median(prompts) == pytest.approx(9946, rel=0.08)
    assert np.percentile(prompts, 90) == pytest.approx(16_021, rel=0.08)
    assert np.mean(outputs) == pytest.approx(252, rel=0.08)
    assert np.median(outputs) == pytest.approx(128, rel=0.08)
    assert np.mean([len(d.turns) for d in dialogues]) == pytest.approx(20, rel=0.08)
    assert infinite_hit_ratio(requests) == pytest.approx(0.93, abs=0.015)
    assert np.median(thinks_s) == pytest.approx(10, rel=0.15)
    assert max(thinks_s) == 30.0


def test_agentic_sessions_arrive_as_often_as_their_turns_ask_for():
    dialogues = Agentic().generate(2.0, 5, 4000).dialogues
    rate = len(turns(dialogues)) / dialogues[-1].started_at_s

    assert rate == pytest.approx(2.0, rel=0.1)


def test_a_dialogue_repeats_all_that_came_before_after_a_pause():
    workload = Agentic().generate(2.0, 1, 100)
    first = next(r for r in workload if len(workload.dialogues[r.session].turns) > 1)
    (second,) = workload.next_turns(first, ended_at_s=50.0)

    assert shared_blocks(first.block_ids, second.block_ids) == len(first.block_ids)
    assert second.at_s >= 50.0 + workload.min_think_s
    last = first
    while follows := workload.next_turns(last, 0.0):
        last = follows[0]
    assert last.turn + 1 == len(workload.dialogues[first.session].turns)


def recorded(folder, *entries):
    common = {"input_tokens": 64, "output_tokens": 5}
    return json_lines(folder / "own.jsonl", *(common | e for e in entries))


def test_recorded_requests_share_what_their_hashes_share(tmp_path):
    path = recorded(
        tmp_path,
        {"arrival_s": 1.0, "block_hashes": [1, 2, 3, 4]},
        {"arrival_s": 2.0, "block_hashes": [1, 2, "x"]},
        {"arrival_s": 3.0},
    )
    one, two, three = read_recorded(path).generate(1.0, 0, 3).requests

    assert shared_blocks(one.block_ids, two.block_ids) == 2
    assert not set(three.block_ids) & {*one.block_ids, *two.block_ids}
    assert len(two.block_ids) == 4


def test_recorded_times_stretch_to_the_rate(tmp_path):
    path = recorded(tmp_path, *({"arrival_s": 10.0 + k} for k in range(5)))

    assert [r.at_s for r in read_recorded(path).generate(2.0, 0, 5).requests] == [
        0.0, 0.5, 1.0, 1.5, 2.0,
    ]  # fmt: skip


def test_a_recorded_session_waits_for_its_answers(tmp_path):
    path = recorded(
        tmp_path,
        {"arrival_s": 5.0, "session": "a"},
        {"arrival_s": 0.0, "session": "a"},
        {"arrival_s": 1.0},
    )
    replay = read_recorded(path).generate(3 / 5, 0, 3)
    first, alone = list(replay)

    assert (first.at_s, alone.session) == (0.0, -1)
    assert not replay.next_turns(alone, 9.0)
    assert replay.next_turns(first, ended_at_s=0.1)[0].at_s == pytest.approx(5.0 / 1.5)
    assert replay.next_turns(first, ended_at_s=9.0)[0].at_s == 9.0 + MIN_THINK_S
    assert math.isfinite(replay.min_think_s)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"arrival_s": 0}', "line 1.*input_tokens"),
        ('{"arrival_s": 0, "input_tokens": 0, "output_tokens": 1}', "at least one"),
        ("", "no requests"),
        ('{"hash_ids": [1], "input_length": 1, "output_length": 1}', "--tokens-per-hash"),
    ],
)
def test_a_file_that_is_no_workload_says_why(tmp_path, text, complaint):
    path = tmp_path / "w.jsonl"
    path.write_text(text)

    with pytest.raises(NoWorkload, match=complaint):
        find_workload(str(path), traces=tmp_path)


def test_a_missing_trace_says_where_to_get_it(tmp_path):
    with pytest.raises(NoWorkload, match=r"github.com/kvcache-ai/Mooncake.*--traces"):
        find_workload("conversation", traces=tmp_path)
    with pytest.raises(NoWorkload, match="prefix30"):
        find_workload("nonsense", traces=tmp_path)
