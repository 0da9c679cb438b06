"""What an engine's count of a prompt teaches: bytes a token from text alone, tokens a medium."""

from __future__ import annotations

import pytest
from test_router import a_router, end

from builders import a_request
from lodestar_extproc.completion import AnswerReport
from lodestar_extproc.fleet.tokens_per_medium import DEFAULT_TOKENS


def used(router, prompt_tokens: int, n: int = 60, **request) -> None:
    """*n* requests, of which the engine says that they had *prompt_tokens*."""
    for _ in range(n):
        decision = router.route(a_request(b"x" * 4000, **request), request_id="", at_s=1.0)
        router.report(AnswerReport(decision.decision_id, False, prompt_tokens, 0, 3))
        router.complete(end(decision))


def test_plain_text_teaches_bytes_a_token():
    router = a_router()
    used(router, 2000)
    assert router.bytes_per_token("m") == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("request_", [{"is_plain": False}, {"n_media": 1, "text_bytes": 1000}])
def test_media_reasoning_and_token_ids_teach_no_bytes_a_token(request_):
    router = a_router()
    used(router, 125, **request_)
    assert router.bytes_per_token("m") == 4.0


def test_what_text_leaves_of_a_count_teaches_what_an_image_is():
    router = a_router()
    used(router, 1000)
    used(router, 250 + 2 * 900, n_media=2, text_bytes=1000)
    assert router.tokens_per_medium("m") == pytest.approx(900, rel=0.02)
    assert router.tokens_per_medium("other") == DEFAULT_TOKENS
    assert router.bytes_per_token("m") == pytest.approx(4.0)


def test_an_image_is_not_learned_before_text_is():
    router = a_router()
    used(router, 5000, n_media=1, text_bytes=1000)
    assert router.tokens_per_medium("m") == DEFAULT_TOKENS


def test_what_names_no_model_is_for_the_only_one_that_was_served():
    router = a_router()
    assert router.only_model == ""
    used(router, 2000, n=1)
    assert router.only_model == "m"
    used(router, 2000, n=1, model="")
    assert router.only_model == "m"
    used(router, 2000, n=1, model="other")
    assert router.only_model == ""
