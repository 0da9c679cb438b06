"""Workloads of the benchmark: what arrives, from traces and from generators, without any text."""
