"""`python -m lodestar_extproc.metrics > docs/metrics.md`."""

import sys

from lodestar_extproc.metrics.docs import metrics_page

sys.stdout.write(metrics_page())
