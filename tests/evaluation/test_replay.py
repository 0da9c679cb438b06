"""`replay` on journals that the real router and journal wrote."""

import random
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from lodestar_extproc.commands.cli import app
from lodestar_extproc.completion import Outcome
from lodestar_extproc.endpoint import SNAPSHOT_COLUMNS, EndpointMetrics
from lodestar_extproc.evaluation.replay import reports
from lodestar_extproc.evaluation.replay_reader import NoJournal, ReadCounts, read_journals
from lodestar_extproc.policies.heuristics import HEURISTICS
from recorded_journal import TTFT_S, Recording

FORMAT_1 = Path(__file__).parent / "journals" / "format_1.jsonl"
"""Written by the router before `EndedRequest`: first tokens, a retry, a decision that was not used,
a failure, a client that left, a refusal, an answer in one piece, a keep-alive, an expiry."""


def read(*paths):
    counts = ReadCounts()
    return list(read_journals(paths, counts)), counts


def the_report(path):
    [report] = reports(read(path)[0])
    return report


def estimate_of(report, policy: str):
    return next(each for each in report.estimates if each.policy == policy)


# -- reading --


def test_what_is_read_is_what_was_decided(tmp_path):
    recording = Recording(tmp_path / "j", burn_in_samples=1)
    address = recording.world.router.fleet.endpoints[1].address
    recording.serve(20)
    recording.world.scraped(2, running_requests=3.0)
    recording.serve(20)

    replayed, _ = read(recording.write())
    assert len(replayed) == 40
    for was, read_back in zip(recording.listener.decisions, replayed, strict=True):
        assert read_back.address == was.address
        assert read_back.reason == was.ranking.reason
        expected, found = was.candidates, read_back.candidates
        for name in SNAPSHOT_COLUMNS:
            np.testing.assert_array_equal(
                getattr(found.snapshot, name), getattr(expected.snapshot, name)
            )
        np.testing.assert_array_equal(found.features.values, expected.features.values)
    assert replayed[20].candidates.snapshot.running_requests[1] == 3.0
    assert address in {e.address for e in replayed[-1].candidates.snapshot.endpoints}


@pytest.mark.parametrize("policy", HEURISTICS)
def test_a_policy_chooses_again_as_it_did(tmp_path, policy):
    recording = Recording(tmp_path / "j", policy="round_robin")
    fleet = recording.world.router.fleet
    for i, endpoint in enumerate(fleet.endpoints):
        metrics = EndpointMetrics(kv_usage_ratio=0.2 * i)
        fleet.record_metrics(endpoint.address, metrics, recording.world.now_s)
    recording.serve(1)
    for _ in range(7):  # loads that differ: no ties
        recording.world.decide()
    recording.serve(9)

    again, once = HEURISTICS[policy](), HEURISTICS[policy]()
    decisions = [d for d in recording.listener.decisions if d.decision_id]
    ended = {d.candidates.snapshot.at_s: d for d in decisions}
    for each in read(recording.write())[0]:
        was = ended[each.candidates.snapshot.at_s]
        expected = once.rank(was.candidates, random.Random(5))
        assert again.rank(each.candidates, random.Random(5)) == expected


def test_a_line_cut_off_and_lines_that_are_none_are_counted(tmp_path):
    recording = Recording(tmp_path / "j", policy="random")
    recording.serve(5)
    path = recording.write()
    whole = path.read_bytes()
    header, first, *_ = whole.splitlines(keepends=True)
    changed = orjson.loads(first)
    bad = [b"\n", b"\x00\xff\n", b"[1]\n", b"{}\n", b'"x"\n']
    for name, value in (("order", [7]), ("matched_tokens", [1.0]), ("propensity", 0)):
        bad.append(orjson.dumps(changed | {name: value}) + b"\n")
    path.write_bytes(header + b"".join(bad) + whole[len(header) : -20])

    replayed, counts = read(path)
    assert len(replayed) == 4
    assert (counts.lines, counts.bad_lines) == (5 + len(bad), 1 + len(bad))
    assert counts.bytes_read == path.stat().st_size


def test_files_are_read_oldest_first(tmp_path):
    recording = Recording(tmp_path / "new", policy="random")
    recording.serve(2)
    path = recording.write()
    old = tmp_path / "old"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b'"opened_s":0.0', b'"opened_s":9.0') + lines[2])
    old.write_bytes(lines[0] + lines[1])

    replayed, counts = read(path, old)
    assert counts.files == [str(old), str(path)]
    assert replayed[0].wall_s < replayed[1].wall_s


HEADERS = (b'{"journal": 2}', b'{"journal": 2, "opened_s": []}', b'{"journal": 2, "opened_s": "x"}')


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"{}", b'{"journal": 3, "opened_s": 0}', *HEADERS]
)
def test_what_is_no_journal_is_refused(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(NoJournal, match=str(path)):
        read(path)


@pytest.mark.parametrize("addresses", [[0, 1, 2], ["", "", ""], {"a": 1}, [None, [], {}]])
def test_a_line_whose_addresses_are_no_texts_is_bad(tmp_path, addresses):
    header, line = FORMAT_1.read_bytes().splitlines()[:2]
    broken = orjson.loads(line) | {"addresses": addresses}
    path = tmp_path / "x"
    path.write_bytes(header + b"\n" + orjson.dumps(broken) + b"\n" + line)

    replayed, counts = read(path)
    assert (len(replayed), counts.lines, counts.bad_lines) == (1, 2, 1)


def test_a_journal_of_the_first_format_is_read_as_ever():
    replayed, counts = read(FORMAT_1)
    [report] = reports(replayed)

    assert (counts.lines, counts.bad_lines) == (19, 0)
    assert report.outcomes == {"served": 16, "failed": 1, "client_gone": 1, "expired": 1}
    assert (report.unused, report.elsewhere) == (1, 1)
    assert report.wall_s == (100.0, 111.0)
    assert report.error.requests == 11
    assert report.error.mape_ratio == pytest.approx(4.412638)
    assert report.policies[0].ttft.mean_s == pytest.approx(0.878857)
    assert replayed[6].candidates.snapshot.running_requests[1] == 3.0


# -- reporting --


def test_decisions_and_times_are_counted_by_policy_and_reason(tmp_path):
    recording = Recording(tmp_path / "j", policy="round_robin")
    recording.serve(30)

    report = the_report(recording.write())
    [policy] = report.policies
    assert (report.pool, report.decisions, report.outcomes) == ("pool", 30, {"served": 30})
    assert policy.policy == "round_robin"
    assert set(policy.reasons) == {"policy"}
    assert policy.ttft.requests == 30
    assert policy.ttft.mean_s == pytest.approx(np.mean(TTFT_S))
    assert policy.ttft.p50_s == pytest.approx(0.2)
    assert policy.ttft.p99_s == pytest.approx(0.4)
    assert report.error is None


def test_what_has_no_first_token_has_no_time(tmp_path):
    recording = Recording(tmp_path / "j", policy="random")
    recording.end(Outcome.FAILED)
    recording.end(Outcome.CLIENT_GONE)

    report = the_report(recording.write())
    assert report.outcomes == {"failed": 1, "client_gone": 1}
    assert np.isnan(report.policies[0].ttft.mean_s)
    assert report.estimates == []


def test_choices_not_used_and_retries_are_set_apart(tmp_path):
    recording = Recording(tmp_path / "j", policy="round_robin", burn_in_samples=1)
    recording.world.serve(1)
    unused = recording.world.decide(stream_id="s")
    recording.world.end(unused, decision_id="", stream_id="s", ttft_s=9.0)
    retried = recording.world.decide()
    recording.world.end(retried, served=retried.addresses[1], ttft_s=9.0)

    report = the_report(recording.write())
    assert (report.unused, report.elsewhere) == (1, 1)
    assert {each.decisions for each in report.estimates} == {1}


def test_prediction_error_is_of_what_was_predicted_then(tmp_path):
    recording = Recording(tmp_path / "j", burn_in_samples=1)
    recording.serve(200)

    report = the_report(recording.write())
    pairs = [
        (float(d.ranking.predicted_ttft_s[d.chosen]), TTFT_S[d.chosen])
        for d in recording.listener.decisions
        if d.ranking.predicted_ttft_s is not None
    ]
    errors = [abs(observed - predicted) / observed for predicted, observed in pairs]
    assert report.error.requests == len(pairs) > 190
    assert report.error.mape_ratio == pytest.approx(np.mean(errors))
    assert report.error.median_ape_ratio == pytest.approx(np.median(errors))
    live = recording.world.router.learner.status().coverage_ratio
    assert report.error.coverage_ratio == pytest.approx(live, abs=0.1)


# -- estimating --


def test_the_policy_that_decided_agrees_with_itself(tmp_path):
    recording = Recording(tmp_path / "j", policy="round_robin")
    recording.serve(60)

    own = estimate_of(the_report(recording.write()), "round_robin")
    assert own.agreement_ratio == 1.0
    assert own.weighted_s[0] == own.agreed_ttft_s == pytest.approx(np.mean(TTFT_S))
    assert own.direct_s is None


def test_a_random_journal_tells_what_another_policy_would_give(tmp_path):
    recording = Recording(tmp_path / "j", policy="random")
    recording.serve(1500)

    report = the_report(recording.write())
    round_robin = estimate_of(report, "round_robin")
    mean_s, error_s = round_robin.weighted_s
    assert round_robin.agreement_ratio == pytest.approx(1 / 3, abs=0.05)
    assert abs(mean_s - np.mean(TTFT_S)) < 4 * error_s < 0.05


def test_a_journal_without_chance_tells_nothing_by_weights(tmp_path):
    recording = Recording(tmp_path / "j", policy="round_robin")
    recording.serve(300)

    unlike = estimate_of(the_report(recording.write()), "random")
    assert unlike.agreement_ratio == pytest.approx(1 / 3, abs=0.1)
    assert unlike.weighted_s is None


def test_direct_estimates_are_the_models_words(tmp_path):
    recording = Recording(tmp_path / "j", burn_in_samples=1, exploration_ratio=0.2)
    recording.serve(300)

    report = the_report(recording.write())
    predicted = [
        d.ranking.predicted_ttft_s
        for d in recording.listener.decisions
        if d.ranking.predicted_ttft_s is not None
    ]
    in_turn = estimate_of(report, "round_robin")
    assert in_turn.direct_s[0] == pytest.approx(np.mean(predicted), rel=0.1)
    assert in_turn.direct_ratio > 1.0


def test_pools_are_kept_apart(tmp_path):
    recording = Recording(tmp_path / "j", policy="random")
    recording.serve(4)
    path = recording.write()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"pool":"pool"', b'"pool":"other"')
    path.write_bytes(b"".join(lines))

    assert [(r.pool, r.decisions) for r in reports(read(path)[0])] == [("other", 1), ("pool", 3)]


# -- the command --


def test_the_command_shows_it_all(tmp_path):
    recording = Recording(tmp_path / "j", burn_in_samples=1)
    recording.serve(60)
    path = recording.write()
    path.write_bytes(path.read_bytes() + b"{half")

    shown = CliRunner().invoke(app, ["replay", str(path)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "61 lines, 1 of them bad" in shown.output
    assert "Estimates, not measurements" in shown.output
    assert "MAPE" in shown.output
    for policy in (*HEURISTICS, "learned"):
        assert policy in shown.output


def test_the_command_speaks_json(tmp_path):
    recording = Recording(tmp_path / "j", policy="random")
    recording.serve(3)

    shown = CliRunner().invoke(app, ["replay", "--json", str(recording.write())])
    report = orjson.loads(shown.output)
    assert report["read"]["lines"] == 3
    assert report["pools"][0]["policies"][0]["ttft"]["requests"] == 3
    assert "not measurements" in report["note"]


def test_the_command_says_what_it_cannot_read(tmp_path):
    (tmp_path / "x").write_text("hello\n")
    for name in ("x", "missing"):
        shown = CliRunner().invoke(app, ["replay", str(tmp_path / name)])
        assert shown.exit_code == 2
        assert name in shown.stderr
