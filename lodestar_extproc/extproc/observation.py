"""Observation: reads one answer as it passes, and tells the router of its first token and end.

It knows neither the request nor how the answer travels; the router finds the decision by its id.
"""

from __future__ import annotations

from typing import Protocol

from lodestar_extproc.completion import (
    AnswerForm,
    AnswerReport,
    Completion,
    FirstToken,
    KeptAnswer,
    KeptState,
    Outcome,
)
from lodestar_extproc.extproc.answer import AnswerReader
from lodestar_extproc.extproc.events import ResponseBody, ResponseEvent, ResponseHeaders
from lodestar_extproc.extproc.retry_after import retry_after_s
from lodestar_extproc.names import RETRY_AFTER

_GONE_STATUSES = (404, 410)
"""RFC 9110, sections 15.5.5 and 15.5.11: what was named is not there."""


class AnswerRouters(Protocol):
    """Who is told of answers; see `routers.Routers`."""

    def first_token(self, event: FirstToken) -> None: ...

    def progressed(self, decision_id: str, at_s: float) -> None: ...

    def kept(self, event: KeptAnswer) -> None: ...

    def report(self, event: AnswerReport) -> None: ...

    def complete(self, event: Completion) -> object: ...

    def draw_full_observation(self, decision_id: str) -> bool: ...


class Observation:
    """Follows one answer until enough of it has been seen.

    Args:
        access_log: Envoy's access log tells every end, and what was read of the answer is added
            to it; without it the end is watched for here.
        decision_id: where it is known before the answer; else the answer's metadata tell it.
    """

    def __init__(self, routers: AnswerRouters, *, access_log: bool, decision_id: str = "") -> None:
        self.decision_id = decision_id
        self._routers = routers
        self._access_log = access_log
        self._reader = AnswerReader()
        self._served: str | None = None
        self._response_code: int | None = None
        self._retry_after_s: float | None = None
        self._to_the_end: bool | None = None
        self._body_began = False
        self._told_first_token = False
        self._told_kept: tuple[str, KeptState] | None = None
        self._told_end = False

    def receive(self, event: ResponseEvent) -> bool:
        """Read the next part of the answer; True when no more of it is wanted."""
        self._note(event)
        if not self.decision_id:
            # Envoy went on without a decision, or its filter forwards no metadata.
            return True
        if isinstance(event, ResponseBody):
            self._read(event)
        if event.end_of_stream:
            self._reader.finish()
        self._tell_kept(event.at_s)
        if event.end_of_stream:
            self._tell_first_token(event.at_s)
            self._tell_end(event.at_s, whole=True)
        if self._reader.failed:
            # The status was sent long before: the access log alone would not know.
            self._tell_end(event.at_s, whole=False)
        return event.end_of_stream or self._told_end or self._is_enough()

    def close(self, at_s: float) -> None:
        """The stream is over; if the answer had not ended, the client has left. Idempotent."""
        if not self._access_log and self.decision_id and not self._told_end:
            self._told_end = True
            self._routers.complete(self._completion(at_s, Outcome.CLIENT_GONE, None))

    def _note(self, event: ResponseEvent) -> None:
        """Keep what Envoy sends beside the answer; attributes come with the first message only."""
        self.decision_id = self.decision_id or event.decision_id
        self._served = self._served or event.served
        self._response_code = self._response_code or event.response_code
        if isinstance(event, ResponseHeaders):
            self._reader = AnswerReader(event.headers)
            self._retry_after_s = retry_after_s(event.headers.get(RETRY_AFTER))
        if self._to_the_end is None and self.decision_id:
            drawn = self._routers.draw_full_observation(self.decision_id)
            self._to_the_end = drawn or not self._access_log

    def _read(self, event: ResponseBody) -> None:
        self._reader.feed(event.body)
        self._tell_first_token(event.at_s)
        self._body_began = self._body_began or self._reader.in_events
        if self._to_the_end and event.body:
            self._routers.progressed(self.decision_id, event.at_s)

    def _tell_first_token(self, at_s: float) -> None:
        if self._told_first_token or not self._reader.prefill_is_over or self._is_refusal():
            return
        self._told_first_token = True
        self._routers.first_token(
            FirstToken(
                self.decision_id,
                at_s,
                self._served,
                body_began_before=self._body_began,
                form=self._reader.form,
                watched=bool(self._to_the_end),
            )
        )

    def _tell_kept(self, at_s: float) -> None:
        """What the engine keeps, as soon as it says so: who reads it may ask for it at once."""
        gone = self._response_code in _GONE_STATUSES
        kept = ("", KeptState.GONE) if gone else self._reader.kept
        if kept is None or kept == self._told_kept:
            return
        self._told_kept, (name, state) = kept, kept
        said_tokens = self._reader.usage.output_tokens
        self._routers.kept(
            KeptAnswer(self.decision_id, at_s, name, state, self._served, said_tokens)
        )

    def _is_refusal(self) -> bool:
        return self._response_code is not None and self._response_code >= 300

    def _is_enough(self) -> bool:
        return not self._to_the_end and (self._told_first_token or self._is_refusal())

    def _tell_end(self, at_s: float, *, whole: bool) -> None:
        if self._told_end:
            return
        self._told_end = True
        form = self._reader.form_at_end if whole and not self._is_refusal() else None
        if self._access_log:
            self._routers.report(self._report(form))
            return
        failed = self._reader.failed or (self._response_code or 0) >= 500
        outcome = Outcome.FAILED if failed else Outcome.SERVED
        self._routers.complete(self._completion(at_s, outcome, form))

    def _completion(self, at_s: float, outcome: Outcome, form: AnswerForm | None) -> Completion:
        seen = Completion(
            at_s=at_s,
            outcome=outcome,
            decision_id=self.decision_id,
            served=self._served,
            response_code=self._response_code,
            retry_after_s=self._retry_after_s,
        )
        return seen.with_report(self._report(form))

    def _report(self, form: AnswerForm | None) -> AnswerReport:
        usage = self._reader.usage
        return AnswerReport(
            decision_id=self.decision_id,
            failed=self._reader.failed,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            form=form,
        )
