"""`python -m lodestar_extproc.config > docs/settings.md`."""

import sys

from lodestar_extproc.config.docs import settings_page

sys.stdout.write(settings_page())
