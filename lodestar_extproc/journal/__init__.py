"""The journal: every decision with what followed, as JSON lines, for replay and evaluation."""
