"""Configs of `experiments.benchmark_federated`."""
