"""LearnerChanges: whether the predictor of one pool decides, and why not; told when it changes."""

from __future__ import annotations

from lodestar_extproc.decision import Reason
from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.events.told_states import ToldStates
from lodestar_extproc.routing.pool_view import PoolView

LEARNING_POLICIES = ("learned", "lodestar_paper")
_KINDS = (
    (Reason.BURN_IN, ChangeKind.COLD),
    (Reason.MODEL, ChangeKind.TRUST_GAINED),
    (Reason.UNTRUSTED, ChangeKind.TRUST_LOST),
)


class LearnerChanges:
    """Tells *events* when trust is gained or lost."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told = ToldStates()

    def observe(self, view: PoolView, at_s: float) -> None:
        """Tell what is new in *view*."""
        if view.policy not in LEARNING_POLICIES:
            # Nobody asks the predictor; what is thought of it is no news.
            self._told.forget("trust")
        elif self._told.turns("trust", view.learner.reason, at_s):
            kind = dict(_KINDS)[view.learner.reason]
            self._events.tell(kind, words(view), pool=view.pool)


def words(view: PoolView) -> str:
    """Who decides in *view*, and why."""
    learner, settings = view.learner, view.settings
    if learner.reason is Reason.BURN_IN:
        return (
            f"the predictor is cold: {settings.fallback_policy} decides until it has learned from "
            f"{settings.burn_in_samples} first tokens (now {learner.n_samples})"
        )
    if learner.reason is Reason.MODEL:
        return (
            f"the predictor decides from now on: {_error(view)} after {learner.n_samples} samples"
        )
    return f"trust is lost, {settings.fallback_policy} decides: {_error(view)} is {_verdict(view)}"


def _error(view: PoolView) -> str:
    error = view.learner.error_ratio
    return "a median error yet unknown" if error is None else f"a median error of {error:.0%}"


def _verdict(view: PoolView) -> str:
    error, limit = view.learner.error_ratio or 0.0, view.settings.trust_max_error_ratio
    if error > limit:
        return f"above trust_max_error_ratio, {limit:.0%}"
    trivial = view.learner.trivial_error_ratio
    if trivial is not None and error > trivial:
        return f"worse than that of always predicting the median TTFT, {trivial:.0%}"
    return f"not yet low enough to be trusted again (trust_max_error_ratio is {limit:.0%})"
