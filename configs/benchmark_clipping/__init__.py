"""Configs of `experiments.benchmark_clipping`."""
