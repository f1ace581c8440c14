"""Configs of `experiments.fairness_metrics`."""
