"""What is measured on real engines, and what is expected of it before."""

import sys
from pathlib import Path

import orjson
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
for folder in (BENCHMARKS, BENCHMARKS / "gpu", BENCHMARKS / "vllm"):
    sys.path.insert(0, str(folder))

from cells import MIXES, Cell  # noqa: E402
from parts import PARTS, PLAN  # noqa: E402
from predict_runs import predict, read_engines  # noqa: E402
from trace_text import TRACE_FILES, replayed  # noqa: E402

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
