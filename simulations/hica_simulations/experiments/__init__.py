"""Experiments: baselines, tables, audit and benchmarks; nothing a hospital needs."""
