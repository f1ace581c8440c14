"""Configurations of experiments.benchmark_distillation."""
