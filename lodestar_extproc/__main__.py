"""`python -m lodestar_extproc` is `lodestar-extproc`."""

from lodestar_extproc.cli import main

main()
