"""What a replica heard of another's request, as bytes and back; times travel as ages."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

from lodestar_extproc.completion import (
    AnswerForm,
    AnswerReport,
    Completion,
    FirstToken,
    KeptAnswer,
    KeptState,
    Outcome,
)
from lodestar_extproc.generated.lodestar.v1.replicas_pb2 import Handed, HandedReport


class Observed(NamedTuple):
    """An observer's stream has ended: what there is to hear of that answer has been told."""

    decision_id: str


HandedEvent: TypeAlias = FirstToken | AnswerReport | Completion | KeptAnswer | Observed
"""What can be heard of a request away from where it was decided on."""


def encode(event: HandedEvent, at_s: float) -> Handed:
    """*event*, which is sent at *at_s*."""
    told = Handed(decision_id=event.decision_id)
    if isinstance(event, FirstToken):
        told.age_s = at_s - event.at_s
        told.first_token.served = event.served or ""
        told.first_token.body_began_before = event.body_began_before
        told.first_token.form = event.form
    elif isinstance(event, Observed):
        told.observed.SetInParent()  # nothing is in it
    elif isinstance(event, AnswerReport):
        told.report.SetInParent()  # it may say nothing but that it is one
        _write_report(told.report, event)
    elif isinstance(event, KeptAnswer):
        told.age_s = at_s - event.at_s
        told.kept.name, told.kept.state = event.name, event.state
        told.kept.served = event.served or ""
        if event.output_tokens is not None and 0 <= event.output_tokens < 2**64:  # the field's
            told.kept.output_tokens = event.output_tokens
    else:
        told.age_s, told.stream_id = at_s - event.at_s, event.stream_id
        _write_end(told, event)
    return told


def decode(told: Handed, at_s: float) -> HandedEvent | None:
    """The event as it is here, where *told* came at *at_s*; None where it makes no sense."""
    event_at_s = at_s - told.age_s if math.isfinite(told.age_s) else at_s
    try:
        match told.WhichOneof("what"):
            case "first_token":
                token = told.first_token
                return FirstToken(
                    told.decision_id,
                    event_at_s,
                    token.served or None,
                    body_began_before=token.body_began_before,
                    form=AnswerForm(token.form),
                )
            case "report":
                return _read_report(told.report, told.decision_id)
            case "end":
                return _read_end(told, event_at_s)
            case "kept":
                return _read_kept(told, event_at_s)
            case "observed":
                return Observed(told.decision_id)
    except ValueError:  # a word of a later version
        pass
    return None


def _write_report(told: HandedReport, event: AnswerReport) -> None:
    told.failed, told.form = event.failed, event.form or ""
    for name in ("prompt_tokens", "cached_tokens", "output_tokens"):
        number = getattr(event, name)
        if number is not None and 0 <= number < 2**64:  # as wide as the field
            setattr(told, name, number)


def _read_report(told: HandedReport, decision_id: str) -> AnswerReport:
    return AnswerReport(
        decision_id,
        failed=told.failed,
        prompt_tokens=told.prompt_tokens if told.HasField("prompt_tokens") else None,
        cached_tokens=told.cached_tokens if told.HasField("cached_tokens") else None,
        output_tokens=told.output_tokens if told.HasField("output_tokens") else None,
        form=AnswerForm(told.form) if told.form else None,
    )


def _read_kept(told: Handed, at_s: float) -> KeptAnswer:
    kept = told.kept
    return KeptAnswer(
        told.decision_id,
        at_s,
        kept.name,
        KeptState(kept.state),
        kept.served or None,
        kept.output_tokens if kept.HasField("output_tokens") else None,
    )


def _write_end(told: Handed, event: Completion) -> None:
    end = told.end
    end.outcome, end.served, end.is_empty = event.outcome, event.served or "", event.is_empty
    end.flags.extend(event.flags)
    for name in ("attempts", "ttft_s", "duration_s", "response_code", "retry_after_s"):
        value = getattr(event, name)
        if value is not None and 0 <= value < 2**32:  # as wide as the narrowest field
            setattr(end, name, value)
    if event.form is not None or event.prompt_tokens is not None:
        report = AnswerReport(
            event.decision_id,
            prompt_tokens=event.prompt_tokens,
            cached_tokens=event.cached_tokens,
            output_tokens=event.output_tokens,
            form=event.form,
        )
        _write_report(end.report, report)


def _read_end(told: Handed, at_s: float) -> Completion:
    end = told.end
    seen = Completion(
        at_s,
        Outcome(end.outcome),
        told.decision_id,
        told.stream_id,
        served=end.served or None,
        attempts=end.attempts if end.HasField("attempts") else None,
        ttft_s=end.ttft_s if end.HasField("ttft_s") else None,
        duration_s=end.duration_s if end.HasField("duration_s") else None,
        response_code=end.response_code if end.HasField("response_code") else None,
        flags=tuple(end.flags),
        is_empty=end.is_empty,
        retry_after_s=end.retry_after_s if end.HasField("retry_after_s") else None,
    )
    if not end.HasField("report"):
        return seen
    return seen.with_report(_read_report(end.report, told.decision_id))
