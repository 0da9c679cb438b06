"""Cures written into a file: in its text, so that comments, order and style stay."""
