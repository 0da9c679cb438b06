"""What became of sessions and caches, by hand."""

import numpy as np
import pytest

from lodestar_extproc.decision import Reason
from lodestar_extproc.evaluation.session_figures import recomputed_ratio, session_figures
from lodestar_extproc.simulator.record import RequestRecord


def a_record(arrived_s=0.0, session=0, endpoint=0, e2e_s=1.0, blocks=(), cached=0, **more):
    return RequestRecord(
        arrived_s,
        prompt_tokens=16 * len(blocks) or 16,
        output_tokens=10,
        reason=Reason.POLICY,
        endpoint=endpoint,
        e2e_s=e2e_s,
        cached_tokens=cached,
        session=session,
        block_ids=np.array(blocks, np.uint64),
        **more,
    )


def test_a_move_is_a_turn_on_another_endpoint_than_the_one_before():
    records = [
        a_record(0.0, session=1, endpoint=0),
        a_record(0.0, session=2, endpoint=1),
        a_record(2.0, session=1, endpoint=1),
        a_record(3.0, session=2, endpoint=1),
        a_record(4.0, session=1, endpoint=1),
        a_record(4.0, session=-1, endpoint=2),
    ]

    assert session_figures(records).moves_per_turn == pytest.approx(1 / 3)


def test_a_sessions_time_is_from_its_first_turn_to_its_end():
    records = [a_record(0.0), a_record(4.0), a_record(8.0, e2e_s=3.0), a_record(1.0, session=7)]

    assert session_figures(records).turn_s == pytest.approx(11.0 / 3)


def test_without_turns_nothing_is_said_of_sessions():
    assert session_figures([a_record(session=-1), a_record(session=3)]) is None


def test_what_was_asked_before_and_is_not_cached_is_computed_again():
    records = [
        a_record(blocks=(1, 2)),
        a_record(blocks=(1, 2, 3, 4), cached=16),
        a_record(blocks=(1, 2, 3, 4), cached=64),
        a_record(blocks=(9,), cached=0),
    ]

    assert recomputed_ratio(records, 0) == pytest.approx(16 / (16 * 11))
    assert recomputed_ratio(records, 2) == 0.0
