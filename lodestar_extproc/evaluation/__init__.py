"""Comparing policies on the same arrivals."""
