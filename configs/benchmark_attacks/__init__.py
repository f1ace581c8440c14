"""Configurations of experiments.benchmark_attacks."""
