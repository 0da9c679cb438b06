"""explanation(): why a request went where it went, in sentences, from what `/explain` shows.

From plain JSON types: a decision of yesterday's journal is explained in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lodestar_extproc.decision import Reason

BY_MODEL = (Reason.MODEL, Reason.EXPLORATION)
WORTH_A_WORD_RATIO = 0.2
"""Of a difference: a smaller part of it is left out of the sentence."""
_WHY: Mapping[str, str] = MappingProxyType(
    {
        Reason.POLICY: "its rule ranked it first",
        Reason.MODEL: "the predictor ranked it first",
        Reason.BURN_IN: "the predictor had too few samples, so the fallback ranked it first",
        Reason.UNTRUSTED: "the predictor's live error was too high, so the fallback ranked it "
        "first",
        Reason.OUT_OF_RANGE: "it was unlike anything learned, so the fallback ranked it first",
        Reason.EXPLORATION: "little was known of it, so it was tried on purpose",
        Reason.ONLY_ENDPOINT: "there was no other",
        Reason.KEEPER: "it keeps what the prompt goes on from",
        Reason.UNPARSED: "the body could not be read, so the fallback ranked it first",
    }
)
TERMS: Mapping[str, str] = MappingProxyType(
    {
        "own_ttft": "its own first token",
        "delay_to_others": "requests that come after it would wait longer",
        "slower_tokens": "requests that generate there would get their tokens later",
        "lost_cache": "prompts that are asked for again would leave the cache",
        "memory": "memory for requests is scarce there",
        "failures": "it has failed lately",
        "generation": "the answer would take longer to generate",
        "late": "it would probably miss its bound",
    }
)
"""What each part of a cost means."""


def explanation(answer: Mapping[str, Any]) -> str:
    """A few sentences on *answer*, which has all that `/explain` shows but these."""
    return " ".join(
        filter(
            None,
            (
                _choice(answer),
                _weighing(answer),
                _fallback(answer),
                _bounds(answer["candidates"]),
                _prediction(answer),
                _what_followed(answer),
            ),
        )
    )


def _choice(answer: Mapping[str, Any]) -> str:
    why = _WHY.get(answer["reason"], answer["reason"])
    return (
        f"Policy {answer['policy']} chose {answer['chosen']} of {len(answer['candidates'])}: "
        f"{why}. Its cache was expected to hold {answer['matched_tokens']:.0f} of "
        f"{answer['prompt_tokens']:.0f} prompt tokens."
    )


def _weighing(answer: Mapping[str, Any]) -> str:
    """What the choice gave up, and for what."""
    weighed = [c for c in answer["candidates"] if c.get("costs_s")]
    if not weighed:
        return ""
    chosen = answer["candidates"][0]
    if answer["reason"] not in BY_MODEL:
        cheapest = min(weighed, key=lambda c: c["cost_s"])
        if cheapest is chosen:
            return "The predictor would have chosen it, too."
        return f"The predictor would have chosen {cheapest['endpoint']}."
    soonest = min(weighed, key=lambda c: c["predicted_ttft_s"])
    if soonest is chosen or soonest["predicted_ttft_s"] == chosen["predicted_ttft_s"]:
        return "It was expected to give the first token soonest."
    sooner_s = chosen["predicted_ttft_s"] - soonest["predicted_ttft_s"]
    dearer_s = soonest["cost_s"] - chosen["cost_s"]
    if dearer_s < 0:
        return f"{soonest['endpoint']} was expected to be {sooner_s:.3f} s sooner."
    return (
        f"{soonest['endpoint']} was expected to be {sooner_s:.3f} s sooner, but all in all that "
        f"costs {dearer_s:.3f} s more: {_difference(soonest, chosen)}."
    )


def _difference(soonest: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """The parts of the cost in which *soonest* is the dearer one, the largest first."""
    more = {
        name: soonest["costs_s"][name] - chosen["costs_s"][name]
        for name in soonest["costs_s"]
        if name != "own_ttft"
    }
    whole = sum(value for value in more.values() if value > 0)
    large = [name for name, value in more.items() if value > WORTH_A_WORD_RATIO * whole]
    said = [
        f"{TERMS.get(name, name)} ({more[name]:+.3f} s)"
        for name in sorted(large, key=lambda n: -more[n])
    ]
    return "; ".join(said) or "the sum of small parts"


def _fallback(answer: Mapping[str, Any]) -> str:
    fallback = answer.get("fallback")
    if fallback is None or answer["reason"] not in BY_MODEL:
        return ""
    if fallback["endpoint"] == answer["chosen"]:
        return f"The fallback, {fallback['policy']}, would have chosen it, too."
    return f"The fallback, {fallback['policy']}, would have chosen {fallback['endpoint']}."


def _bounds(candidates: Sequence[Mapping[str, Any]]) -> str:
    text = []
    if any(c.get("misses_tpot") for c in candidates):
        text.append("Endpoints that would miss the bound on TPOT came last.")
    if any(c.get("adapter_effort") is not None for c in candidates):
        text.append("Endpoints at hand for the adapter came before others.")
    return " ".join(text)


def _prediction(answer: Mapping[str, Any]) -> str:
    predicted_s = answer["predicted_ttft_s"]
    if predicted_s is None:
        return ""
    chosen, *others = answer["candidates"]
    known = [c["predicted_ttft_s"] for c in others if c["predicted_ttft_s"] is not None]
    best = f", the best other {min(known):.3f} s" if known else ""
    between = ""
    if chosen.get("ttft_low_s") is not None:
        between = f", with 80 % between {chosen['ttft_low_s']:.3f} and {chosen['ttft_high_s']:.3f}"
    by = answer["predicted_by"]
    who = f" (predictor {by})" if by else ""
    return f"Predicted TTFT {predicted_s:.3f} s{between}{who}{best}."


def _what_followed(answer: Mapping[str, Any]) -> str:
    if not answer["used"]:
        return "Envoy did not wait for the choice and went on by its own policy."
    text = "" if answer["ttft_s"] is None else f"Observed TTFT {answer['ttft_s']:.3f} s. "
    served = answer["served"]
    if served is not None and served != answer["chosen"]:
        text += f"It was served by {served}. "
    outcome = answer["outcome"]
    return text + (f"It ended as {outcome}." if outcome else "It has not ended yet.")
