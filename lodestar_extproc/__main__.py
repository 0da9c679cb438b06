"""`python -m lodestar_extproc` is `lodestar-extproc`."""

from lodestar_extproc.commands.cli import main

main()
