"""docs/reference/ext_proc_states.md is drawn from the tables."""

from pathlib import Path

from lodestar_extproc.extproc.docs import states_page
from lodestar_extproc.extproc.transitions import StreamMode

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "ext_proc_states.md"


def test_the_page_of_states_is_what_the_tables_say():
    assert PAGE.read_text() == states_page(), (
        "run: python -m lodestar_extproc.extproc > docs/reference/ext_proc_states.md"
    )


def test_every_way_of_sending_a_request_is_drawn():
    for mode in StreamMode:
        assert f"## Request {mode}, answer " in states_page()
