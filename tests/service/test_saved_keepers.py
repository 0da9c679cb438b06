"""Who keeps which answer survives a restart, beside what was learned, and never harms that."""

from __future__ import annotations

import logging
from base64 import b64encode

import pytest

from builders import a_prompt, a_request, a_router
from lodestar_extproc.completion import Completion, KeptAnswer, KeptState, Outcome
from lodestar_extproc.decision import Reason
from lodestar_extproc.learning.checkpoint import read_checkpoint, write_checkpoint
from lodestar_extproc.request import Keeping, RequestKind, name_key
from lodestar_extproc.service import saved_learning
from lodestar_extproc.service.saved_learning import KEPT, SavedLearning


def a_pool(path, **settings):
    router = a_router(3, policy="round_robin", checkpoint_path=str(path), **settings)
    return router, SavedLearning(router, clock=lambda: 100.0)


def send(router, prompt, at_s, continues=None):
    keeping = Keeping(keeps_answer=True, continues=continues and name_key(continues))
    request = a_request(prompt, kind=RequestKind.RESPONSES, keeping=keeping)
    return router.route(request, request_id="", at_s=at_s)


def answered(router, name, prompt=b"x" * 4000, at_s=1.0, tokens=50):
    decision = send(router, prompt, at_s)
    told = KeptAnswer(decision.decision_id, at_s, name, KeptState.ENDED, decision.address, tokens)
    router.kept(told)
    end = Completion(at_s, Outcome.SERVED, decision.decision_id, served=decision.address)
    router.complete(end._replace(response_code=200))
    return decision


def test_a_client_goes_on_where_it_was_and_its_whole_prompt_is_counted(tmp_path):
    router, saved = a_pool(tmp_path / "learned")
    saved.restore()
    first = [answered(router, f"resp_{i}", a_prompt(2000, i), at_s=float(i)) for i in range(9)]
    saved.save()

    router, saved = a_pool(tmp_path / "learned")
    saved.restore()
    for number, before in enumerate(first):
        turn = send(router, b"and?" * 40, 101.0 + number, continues=f"resp_{number}")
        assert (turn.address, turn.ranking.reason) == (before.address, Reason.KEEPER)
        assert turn.candidates.request.prompt_tokens == 2000 + 50 + 40
        hashes = before.candidates.request.block_hashes
        assert turn.candidates.request.block_hashes[: len(hashes)] == hashes
        assert router.look_up(f"resp_{number}", 101.0).addresses == (before.address,)


def test_the_last_used_are_written_and_stay_the_last_used(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_learning, "MAX_KEPT", 3)
    router, saved = a_pool(tmp_path / "learned")
    saved.restore()
    for i in range(6):
        answered(router, f"resp_{i}", at_s=float(i))
    saved.save()
    router, saved = a_pool(tmp_path / "learned")
    saved.restore()
    known = [key for key, _ in router.kept_answers.recent(10)]
    assert known == [name_key(f"resp_{i}") for i in (5, 4, 3)]


def test_what_is_known_already_is_not_replaced_by_what_a_file_says(tmp_path):
    router, saved = a_pool(tmp_path / "learned")
    saved.restore()
    answered(router, "resp_1")
    saved.save()
    kept = router.kept_answers.get(name_key("resp_1"))
    kept.address = "10.0.0.3:8000"  # it has moved since
    saved.restore()
    assert router.look_up("resp_1", 2.0).addresses == ("10.0.0.3:8000",)


def test_a_file_of_before_is_read_and_one_with_nothing_kept_is_as_those_were(tmp_path):
    path = tmp_path / "learned"
    router, saved = a_pool(path)
    write_checkpoint(path, "engine", router.learner.state() | {"n_learned": 7})
    saved.restore()
    assert router.learner.status().n_samples == 7
    saved.save()
    assert KEPT not in read_checkpoint(path, "engine")


@pytest.mark.parametrize(
    "kept", [5, "not base64 at all", "é", None, b64encode(b"\xff" * 9).decode(), ["x"]]
)
def test_one_that_is_wrong_inside_is_set_aside_whole_and_nothing_is_taken_from_it(
    kept, tmp_path, caplog
):
    path = tmp_path / "learned"
    router, saved = a_pool(path)
    write_checkpoint(path, "engine", router.learner.state() | {"n_learned": 7, KEPT: kept})
    with caplog.at_level(logging.WARNING):
        saved.restore()
    assert router.learner.status().n_samples == 0
    assert path.with_name("learned.bad").exists()
    assert "starting cold" in caplog.text


def test_a_state_that_the_learner_refuses_leaves_no_keepers_either(tmp_path):
    path = tmp_path / "learned"
    router, saved = a_pool(path)
    saved.restore()
    answered(router, "resp_1")
    saved.save()
    state = read_checkpoint(path, "engine")
    write_checkpoint(path, "engine", state | {"errors": "none"})
    router, saved = a_pool(path)
    saved.restore()
    assert router.kept_answers.get(name_key("resp_1")) is None
