"""Configs of `experiments.benchmark_fairness`."""
