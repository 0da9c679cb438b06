"""The arithmetic of a decision, compiled from one C file where there was a compiler; see 0034."""
