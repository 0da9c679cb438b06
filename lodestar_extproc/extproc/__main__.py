"""`python -m lodestar_extproc.extproc > docs/reference/ext_proc_states.md`."""

import sys

from lodestar_extproc.extproc.docs import states_page

sys.stdout.write(states_page())
