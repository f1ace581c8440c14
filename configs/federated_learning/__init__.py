"""Configs of `experiments.federated_learning`."""
