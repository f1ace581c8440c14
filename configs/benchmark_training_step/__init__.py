"""Configurations of experiments.benchmark_training_step."""
