"""Configurations of experiments.private_training."""
