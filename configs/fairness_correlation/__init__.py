"""Configs of `experiments.fairness_correlation`."""
