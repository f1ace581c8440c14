"""Configurations of experiments.canary_extraction."""
